"""What the audit service does as time passes: checkpoints, intents without an outcome, and how far behind it is."""

import time
from pathlib import Path
from typing import Any

from redis import Redis

from heartguard.audit import outcome_id, unknown_id
from heartguard.audit.event import Event, decode, make
from heartguard.audit.spool import SUFFIX
from heartguard.audit.stream import STREAM
from heartguard.database import Database
from heartguard.errors import Unavailable

from . import db, instruments
from .intake import StreamReader
from .recorder import INTENT, Recorder
from .timing import Timing
from .worker import Worker

INTERVAL = 1.0
"""Seconds between rounds."""
AT_ONCE = 500
BEHIND = 30.0
"""Seconds; where the oldest event has been waiting for longer, the service is degraded."""


class Housekeeping(Worker):
    """``spool`` is the folder whose files wait for Valkey."""

    def __init__(
        self,
        database: Database,
        valkey: Redis,
        recorder: Recorder,
        reader: StreamReader,
        spool: Path,
        timing: Timing,
    ) -> None:
        super().__init__("audit housekeeping")
        self._database = database
        self._valkey = valkey
        self._recorder = recorder
        self._reader = reader
        self._spool = spool
        self._timing = timing
        self._signed = time.monotonic()
        self._lag = 0.0

    def work(self) -> float:
        self._measure_database()
        self._report_unknown()
        if time.monotonic() - self._signed >= self._timing.sign_seconds:
            self.sign_all()
            self._signed = time.monotonic()
        self._measure_stream()
        self._reader.forget_silent()
        return INTERVAL

    def check_backlog(self) -> None:
        """Raises where events have been waiting for long. Nothing is lost: they are recorded when they can be."""
        if self._lag > BEHIND:
            raise Unavailable(f"events have been waiting to be recorded for {self._lag:.0f} s")

    def sign_all(self) -> None:
        """Sign every chain that has grown since it was signed."""
        more = True
        while more:
            with self._database.transaction() as tx:
                grown = db.unsigned_chains(tx, AT_ONCE)
            for org_id in grown:
                with self._database.transaction() as tx:
                    self._recorder.sign(tx, org_id)
            more = len(grown) == AT_ONCE

    def _report_unknown(self) -> None:
        """Say of each intent that has been without an outcome for too long that its outcome is not known."""
        self._recorder.prepare()
        with self._database.transaction() as tx:
            stale = [
                decode(event.encode()) for event in db.take_stale_intents(tx, self._timing.intent_seconds, AT_ONCE)
            ]
            outcomes = {(intent.org_id, outcome_id(intent.event_id)): intent for intent in stale}
            arrived = db.known_ids(tx, list(outcomes)) if outcomes else set()
            found = [unknown(intent) for key, intent in outcomes.items() if key not in arrived]
            if found:
                self._recorder.append(tx, found)
                instruments.RECORDED.labels("intents").inc(len(found))

    def _measure_database(self) -> None:
        with self._database.transaction() as tx:
            found = db.backlog(tx)
        instruments.DEPTH.labels("outbox").set(found.outbox)
        instruments.LAG.labels("outbox").set(found.waits or 0)
        instruments.INTENTS.set(found.intents)
        instruments.POISON_KEPT.set(found.poison)
        instruments.SPOOLS.set(sum(_size(file) for file in self._spool.glob(f"*{SUFFIX}")))
        self._lag = float(found.waits or 0)

    def _measure_stream(self) -> None:
        waits = 0.0
        depth = int(self._valkey.xlen(STREAM))
        if depth and (oldest := self._oldest()):
            waits = max(0.0, time.time() - int(oldest.split(b"-")[0]) / 1000)
        instruments.DEPTH.labels("stream").set(depth)
        instruments.LAG.labels("stream").set(waits)
        self._lag = max(self._lag, waits)

    def _oldest(self) -> bytes | None:
        found: Any = self._valkey.xrange(STREAM, count=1)
        return found[0][0] if found else None


def unknown(intent: Event) -> Event:
    """The report that nobody knows what became of the intent."""
    return make(
        intent.action,
        intent.actor,
        service=intent.service,
        org_id=intent.org_id,
        outcome="unknown",
        request_id=intent.request_id,
        payload={**intent.payload, INTENT: intent.event_id},
        event_id=unknown_id(intent.event_id),
    )


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # drained in this moment
        return 0
