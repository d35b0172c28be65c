"""Keeping the gateways' list complete: see :mod:`heartguard.revocations`."""

from redis import Redis

from heartguard.database import Database
from heartguard.logs import log
from heartguard.revocations import RevocationList
from heartguard.valkey import REVOCATIONS_COMPLETE

from . import db_revocations

BATCH = 1000


class Revocations(RevocationList):
    """The list, and what it takes to bring it up to date."""

    def __init__(self, database: Database, valkey: Redis) -> None:
        super().__init__(valkey)
        self._database = database

    def catch_up(self) -> None:
        """Publish what is outstanding, or everything where this Valkey process has not been told it all."""
        run_id = self._valkey.info("server")["run_id"].encode()
        if self._valkey.get(REVOCATIONS_COMPLETE) == run_id:
            self._publish_outstanding()
            return
        self._valkey.delete(REVOCATIONS_COMPLETE)
        self._publish_everything()
        self._publish_outstanding()
        self._valkey.set(REVOCATIONS_COMPLETE, run_id)
        log.info("revocations published to a new Valkey process")

    def _publish_outstanding(self) -> None:
        full = True
        while full:
            with self._database.transaction() as tx:
                page = db_revocations.unpublished(tx, BATCH)
            if page:
                self.write(page)
                with self._database.transaction() as tx:
                    db_revocations.mark_published(tx, page)
            full = len(page) == BATCH

    def _publish_everything(self) -> None:
        last, full = None, True
        while full:
            with self._database.transaction() as tx:
                page = db_revocations.unexpired(tx, last, BATCH)
            if page:
                self.write(page)
                last = page[-1]
            full = len(page) == BATCH
