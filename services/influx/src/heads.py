"""The heads of points, their measurement and tags, that were found to be good: devices send the same again and again."""

from collections.abc import Iterable, Mapping
from sys import getsizeof

from .memory import Memory
from .points import Rules, head_problems, is_short
from .store import Series

ROOM = 32_000_000
"""Bytes for all heads that are remembered, some 40,000."""
_BESIDES = 400
"""Bytes that a head takes beside its texts."""

Key = tuple[str | None, ...]


def key_of(measurement: str, tags: Mapping[str, str], rules: Rules) -> Key:
    """What makes the series, in the order in which the tags come."""
    return (rules.user_id, measurement, *tags, *tags.values())


class Heads:
    """The series of good heads; good in any batch by the same user, with whatever fields."""

    def __init__(self) -> None:
        self._known: Memory[Key, Series] = Memory(ROOM, lambda key: sum(map(getsizeof, key)) + _BESIDES)
        self.series = self._known.get

    def learn(self, found: Iterable[tuple[Key, Series]]) -> None:
        """Remember those that are good."""
        self._known.keep((key, series) for key, series in found if is_short(series) and not any(head_problems(series)))
