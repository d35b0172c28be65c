"""Ctrl-C that ends a run in order: between two requests, and never in one whose outcome would stay unknown."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

INTERRUPTED = 130
"""The exit code."""

_HEARD = b"\nEnding, once the request under way is answered; Ctrl-C again does not wait for it.\n"
_SLICE = 0.1
"""Seconds after which a wait looks whether it is to end."""


class Stopped(Exception):
    """Whoever started the run has asked for its end."""


class Stop:
    """Whether the run is to end. It is asked before each request and while something is waited for.

    No :class:`threading.Event`: a signal handler that sets one blocks for ever where the main thread is just
    entering its ``wait``, with the same lock held.
    """

    def __init__(self) -> None:
        self._asked = False
        self._postponed = 0

    def ask(self) -> None:
        self._asked = True

    @property
    def asked(self) -> bool:
        return self._asked

    def check(self) -> None:
        """Raises :class:`Stopped`, unless nobody has asked, or the end is :meth:`postponed`."""
        if self._is_due():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Returns early where the run is to end."""
        end = time.monotonic() + seconds
        while not self._is_due() and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _SLICE))

    @contextmanager
    def postponed(self) -> Iterator[None]:
        """What is done in the block is done completely: it clears away, or puts back what it has changed."""
        self._postponed += 1
        try:
            yield
        finally:
            self._postponed -= 1

    def _is_due(self) -> bool:
        return self._asked and not self._postponed


@contextmanager
def stopped_by_signals(stop: Stop) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) ends the run in order, the next breaks off what is under way."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.asked:
            sys.exit(INTERRUPTED)
        stop.ask()
        with suppress(OSError):
            os.write(2, _HEARD)  # a stream's own write could be the one that was just interrupted

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
