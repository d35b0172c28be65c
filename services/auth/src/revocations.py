"""What is dead before its time, and how every gateway comes to know.

PostgreSQL holds the truth; Valkey holds the list that gateways read. Four things make the list
trustworthy:

* A revocation is committed in PostgreSQL first, marked as unpublished, then written to Valkey.
* ``POST /auth/logout`` answers 204 only when that is so much as certain: Valkey has acknowledged the
  write, or its address refuses connections (or it is still loading), so that no gateway can read the
  list either and all of them ask ``/auth/token/introspect``, which reads PostgreSQL (and believe a yes
  for half a second). Any other failure
  (no answer in time, a name that does not resolve, a refused write) may be auth's alone while
  gateways go on reading a list without this revocation: that is a 503. The session has ended all
  the same, and the background thread publishes it as soon as it can.
* The marker (:data:`heartguard.valkey.REVOCATIONS_COMPLETE`) holds the ``run_id`` of the Valkey process that
  was told everything. A Valkey that restarted, empty, with an older copy of its data, or as a promoted replica,
  has another ``run_id``: the marker does not fit, gateways ask auth, and the background thread writes
  everything anew before it sets the marker again.
* The marker does not expire. Auth is the only one who revokes; while it is down nothing can be missing
  from the list, and gateways must be able to go on without it.

The list must not be evicted: Valkey runs with ``maxmemory-policy noeviction``.
"""

from collections.abc import Sequence

from redis import Redis
from redis.exceptions import BusyLoadingError, RedisError

from heartguard.database import Database
from heartguard.logs import log
from heartguard.valkey import REVOCATIONS_COMPLETE, REVOKED_SESSION, REVOKED_TOKEN

from . import db
from .security import NotDeadEverywhere

BATCH = 1000
CLOCK_SKEW = 60
"""Seconds that an entry outlives its tokens, for gateways whose clock is behind."""

_PREFIXES = {"jti": REVOKED_TOKEN, "sid": REVOKED_SESSION}


class Revocations:
    """Publishes revocations to the list that the gateways read."""

    def __init__(self, database: Database, valkey: Redis) -> None:
        self._database = database
        self._valkey = valkey

    def announce(self, revoked: Sequence[db.Revocation]) -> None:
        """Tell the gateways of what was just committed. Raises :class:`NotDeadEverywhere`; see above."""
        try:
            self._write(revoked)
        except RedisError as error:
            log.warning("revocation not published", error=repr(error))
            if not _nobody_can_read(error):
                raise NotDeadEverywhere from error

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
                page = db.unpublished(tx, BATCH)
            if page:
                self._write(page)
                with self._database.transaction() as tx:
                    db.mark_published(tx, page)
            full = len(page) == BATCH

    def _publish_everything(self) -> None:
        last, full = None, True
        while full:
            with self._database.transaction() as tx:
                page = db.unexpired(tx, last, BATCH)
            if page:
                self._write(page)
                last = page[-1]
            full = len(page) == BATCH

    def _write(self, revoked: Sequence[db.Revocation]) -> None:
        with self._valkey.pipeline(transaction=False) as pipeline:
            for item in revoked:
                until = int(item.expires_at.timestamp()) + CLOCK_SKEW
                pipeline.set(_PREFIXES[item.kind] + item.id, b"1", exat=until)
            pipeline.execute()


def _nobody_can_read(error: RedisError) -> bool:
    """Whether the failure shows that Valkey serves no one at present, rather than just not us."""
    refused = (ConnectionRefusedError, FileNotFoundError)  # TCP or socket file; no such socket file
    return isinstance(error, BusyLoadingError) or isinstance(error.__context__, refused)
