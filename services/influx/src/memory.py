"""A bounded memory that threads share."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


def _one(_key: object) -> int:
    return 1


class Memory(Generic[K, V]):
    """Keeps the entries that were used last, as long as their keys weigh no more than ``size`` together."""

    def __init__(self, size: int, weigh: Callable[[K], int] = _one) -> None:
        self._room = size
        self._weigh = weigh
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            return found

    def get_all(self, keys: Sequence[K]) -> list[V | None]:
        with self._lock:
            found = list(map(self._entries.get, keys))
            for key, value in zip(keys, found, strict=True):
                if value is not None:
                    self._entries.move_to_end(key)
        return found

    def keep(self, entries: Iterable[tuple[K, V]]) -> None:
        with self._lock:
            for key, value in entries:
                if key not in self._entries:
                    self._room -= self._weigh(key)
                self._entries[key] = value
                self._entries.move_to_end(key)
            while self._room < 0:
                self._room += self._weigh(self._entries.popitem(last=False)[0])

    def forget(self, key: K) -> None:
        with self._lock:
            if self._entries.pop(key, None) is not None:
                self._room += self._weigh(key)
