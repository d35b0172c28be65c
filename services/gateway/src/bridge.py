"""From the threads that answer the gateway's own pages to what lives on the event loop."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Bridge:
    """Runs coroutines on the loop for threads that wait for them. Thread-safe once the loop is known."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def leads_to(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def wait(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """What ``work`` returns or raises; ``TimeoutError`` after ``timeout`` seconds, and then it is given up."""
        assert self._loop is not None
        running = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return running.result(timeout)
        except TimeoutError:
            running.cancel()
            raise
