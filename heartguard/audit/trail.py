"""Where a process's events go: into the stream, or into the spool while that cannot be."""

import threading
from collections.abc import Sequence
from pathlib import Path

from .. import metrics
from ..errors import Unavailable
from ..logs import log
from ..valkey import FastValkey
from .event import Event, encode
from .spool import Spool, SpoolFull
from .stream import Stream, StreamFull

DRAIN_INTERVAL = 1.0
"""Seconds between two looks into the spool."""


class Trail:
    """Takes events. Thread-safe; :meth:`start` begins to drain the spool in the background."""

    def __init__(self, service: str, stream: Stream, spool: Spool) -> None:
        self.service = service
        self._stream = stream
        self._spool = spool
        self._spooled = metrics.AUDIT_SPOOLED.labels(service)
        self._waiting = metrics.AUDIT_WAITING.labels(service)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-spool", daemon=True)
        metrics.AUDIT_SPOOL_BYTES.labels(service).set_function(lambda: spool.size)

    @classmethod
    def open(cls, service: str, redis_url: str, spool_folder: Path) -> "Trail":
        trail = cls(service, Stream(FastValkey(redis_url)), Spool(spool_folder, service))
        trail.start()
        return trail

    def put(self, *events: Event) -> None:
        """Return when the events are safe. Raises :class:`Unavailable` where nothing takes them."""
        self.put_encoded([encode(event) for event in events])

    def put_encoded(self, events: Sequence[bytes]) -> None:
        try:
            run_id = self._stream.append(events)
        except (Unavailable, StreamFull) as problem:
            self.put_aside(events, problem)
        else:
            self.sent(events, run_id)

    def sent(self, events: Sequence[bytes], run_id: bytes) -> None:
        """Keep what the Valkey process ``run_id`` has just taken, for as long as that could still lose it."""
        self._spool.keep(events, run_id)

    def put_aside(self, events: Sequence[bytes], problem: Exception) -> None:
        """Put events into the spool that could not be sent. Raises :class:`Unavailable` where it does not take them."""
        try:
            self._spool.append(events)
        except SpoolFull as error:
            log.error("audit event refused: neither Valkey nor the spool takes it", error=repr(problem))
            raise Unavailable from error
        self._spooled.inc(len(events))

    def check(self) -> None:
        """Raises :class:`Unavailable` where an event could not be taken: then what it would tell must not happen."""
        if self._stream.away:
            try:
                self._spool.check()
            except SpoolFull as error:
                raise Unavailable from error

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """End the thread; what is in the spool then waits for the next process."""
        self._stop.set()
        self._thread.join(timeout)
        self._spool.close()
        self._stream.close()

    def _run(self) -> None:
        while not self._stop.wait(DRAIN_INTERVAL):
            try:
                self.drain()
            except Exception:  # noqa: BLE001 - whatever it is, the next round has to come
                log.exception("audit spool")

    def drain(self) -> None:
        """Send what waits in the spool, if Valkey answers."""
        try:
            waiting, run_id = self._stream.depth()
            self._waiting.set(waiting)
            self._spool.release(run_id)
            sent = self._spool.drain(self._stream.append)
        except (Unavailable, StreamFull):
            return
        if sent:
            log.info("audit spool drained", events=sent)
