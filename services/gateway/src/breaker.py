"""A circuit breaker: leaves a service alone that keeps failing, and finds out by itself when it is back."""

import time

from heartguard.errors import Unavailable

from . import instruments

FAILURES = 5
"""So many in a row open the circuit."""
PAUSE = 0.5
"""Seconds until one request may try again. Short: a service that was killed is back within a second or two."""


class Breaker:
    """The circuit of one upstream, for one event loop.

    Closed, every request passes. Open, none does. After :data:`PAUSE` it is half open: one request
    passes, and its outcome closes the circuit or opens it again.
    """

    def __init__(self, upstream: str, *, failures: int = FAILURES, pause: float = PAUSE) -> None:
        self._upstream = upstream
        self._limit = failures
        self._pause = pause
        self._failures = 0
        self._opened_at = 0.0
        self._trying = False
        instruments.CIRCUIT.labels(upstream).set(instruments.CLOSED)

    def enter(self) -> None:
        """Ask to pass; raises :class:`Unavailable` (503). Who passes must call :meth:`succeeded` or :meth:`failed`."""
        if self._failures < self._limit:
            return
        if self._trying or time.monotonic() - self._opened_at < self._pause:
            raise Unavailable(f"The {self._upstream} service is unavailable for now")
        self._trying = True
        instruments.CIRCUIT.labels(self._upstream).set(instruments.HALF_OPEN)

    def succeeded(self) -> None:
        if self._failures:
            self._failures = 0
            self._trying = False
            instruments.CIRCUIT.labels(self._upstream).set(instruments.CLOSED)

    def failed(self) -> None:
        self._failures += 1
        self._trying = False
        if self._failures >= self._limit:
            self._opened_at = time.monotonic()
            instruments.CIRCUIT.labels(self._upstream).set(instruments.OPEN)
