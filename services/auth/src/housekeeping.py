"""What the auth service does on its own: setting up, publishing revocations, sweeping."""

import threading
import time

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from heartguard.database import Database
from heartguard.errors import ServiceError
from heartguard.logs import log

from . import db_sweeps
from .accounts import Accounts
from .revocations import Revocations
from .security import NotSetUp

INTERVAL = 0.5
"""Seconds between rounds."""
SWEEP_INTERVAL = 60.0
SWEEP_BATCH = 1000


class Housekeeping:
    """A background thread. Whatever fails in a round is tried again in the next; only changes are logged."""

    def __init__(self, accounts: Accounts, revocations: Revocations, database: Database) -> None:
        self._accounts = accounts
        self._revocations = revocations
        self._database = database
        self._set_up = False
        self._swept = time.monotonic()
        self._failing: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """End the thread; waits up to ``timeout`` seconds for the round under way."""
        self._stop.set()
        self._thread.join(timeout)

    def check_set_up(self) -> None:
        """Raises :class:`NotSetUp` until the default organization and its admin are there."""
        if not self._set_up:
            raise NotSetUp

    def _run(self) -> None:
        while True:
            self._note(self._round())
            if self._stop.wait(INTERVAL):
                return

    def _round(self) -> str | None:
        """One round; what went wrong in it, if anything did."""
        try:
            self._do_round()
        except (ServiceError, RedisError, SQLAlchemyError) as error:
            return repr(error)
        return None

    def _do_round(self) -> None:
        if not self._set_up:
            self._accounts.bootstrap()
            self._set_up = True
        if time.monotonic() - self._swept >= SWEEP_INTERVAL:
            self._sweep()
        self._revocations.catch_up()

    def _sweep(self) -> None:
        with self._database.transaction() as tx:
            more = db_sweeps.sweep(tx, SWEEP_BATCH)
        if not more:
            self._swept = time.monotonic()

    def _note(self, problem: str | None) -> None:
        if problem == self._failing:
            return
        self._failing = problem
        if problem:
            log.warning("housekeeping fails", error=problem)
        else:
            log.info("housekeeping works again")
