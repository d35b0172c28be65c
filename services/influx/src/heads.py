"""The heads of points (measurement and tags) that were found to be good: devices send the same again and again."""

from collections.abc import Iterable, Mapping
from sys import getsizeof

import msgspec

from .memory import Memory
from .points import Rules, head_problems, is_short
from .store import Series

ROOM = 32_000_000
"""Bytes for all heads that are remembered, some 30,000."""

encode = msgspec.json.Encoder().encode
"""A head, from ``(measurement, tags)``; another where the tags come in another order."""
_decode = msgspec.json.Decoder(tuple[str, dict[str, str]]).decode


Key = tuple[str | None, bytes]
"""Whose points alone it may be, and the head."""


def _weigh(key: Key) -> int:
    """Bytes of a head with its series, which has the texts twice."""
    return 3 * getsizeof(key[1]) + 700


def read(head: bytes) -> tuple[str, Mapping[str, str]]:
    return _decode(head)


class Heads:
    """The series of good heads; good in any batch by the same user, with whatever fields."""

    def __init__(self) -> None:
        self._known: Memory[Key, Series] = Memory(ROOM, _weigh)

    def series(self, head: bytes, rules: Rules) -> Series | None:
        return self._known.get((rules.user_id, head))

    def learn(self, found: Iterable[tuple[bytes, Series]], rules: Rules) -> None:
        """Remember those that are good."""
        self._known.keep(
            ((rules.user_id, head), series)
            for head, series in found
            if is_short(series) and not any(head_problems(series))
        )
