"""How many queries of one organization run at once, so that the others find a thread and a store that is free."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .errors import TooManyQueries

WAITING = 2
"""So many times as many as may run may wait for one that ends."""
WAIT_SECONDS = 3.0


@dataclass
class _Share:
    running: int = 0
    waiting: int = 0


class QueryPlaces:
    """The places that each organization has in this process. Thread-safe."""

    def __init__(self, running: int) -> None:
        self._running = running
        self._shares: dict[int, _Share] = {}
        self._changed = threading.Condition()

    @contextmanager
    def of(self, org_id: int) -> Iterator[None]:
        """Take a place, and give it back. Raises :class:`TooManyQueries` where there is none in time."""
        self._take(org_id)
        try:
            yield
        finally:
            with self._changed:
                share = self._shares[org_id]
                share.running -= 1
                self._clear(org_id, share)
                self._changed.notify_all()

    def _take(self, org_id: int) -> None:
        end = time.monotonic() + WAIT_SECONDS
        with self._changed:
            share = self._shares.setdefault(org_id, _Share())
            if share.running >= self._running and share.waiting >= WAITING * self._running:
                raise TooManyQueries
            share.waiting += 1
            try:
                while share.running >= self._running:
                    if not self._changed.wait(max(end - time.monotonic(), 0)):
                        raise TooManyQueries
                share.running += 1
            finally:
                share.waiting -= 1
                self._clear(org_id, share)

    def _clear(self, org_id: int, share: _Share) -> None:
        if share == _Share():
            self._shares.pop(org_id, None)
