"""Times of the contract as whole nanoseconds since the epoch: a ``datetime`` keeps microseconds only.

A batch holds thousands, and most of them share their minute, their second of it and the form of
their end. So each of these three parts is judged and understood once, then looked up.
"""

import re
from collections.abc import Callable, Iterable
from datetime import datetime

from .models.base import DATE, FRACTION, HOUR_AND_MINUTE, SECONDS, ZONE

SECOND = 1_000_000_000
REMEMBERED = 8192


class _Parts(dict[str, int]):
    """The nanoseconds of parts of times; those that are none raise ValueError."""

    def __init__(self, pattern: str, read: Callable[[str], int]) -> None:
        super().__init__()
        self._form = re.compile(pattern)
        self._read = read

    def __missing__(self, part: str) -> int:
        if self._form.fullmatch(part) is None:
            raise ValueError("is no time")
        if len(self) >= REMEMBERED:
            self.clear()
        self[part] = found = self._read(part)
        return found


def _fraction(end: str) -> int:
    digits = end[:-1] if end[-1] == "Z" else end[:-6]
    return int(digits[1:].ljust(9, "0"))


_minutes = _Parts(
    f"{DATE}T{HOUR_AND_MINUTE}", lambda text: int(datetime.fromisoformat(text + "+00:00").timestamp()) * SECOND
)
_seconds = _Parts(SECONDS, lambda text: int(text[1:]) * SECOND)
_ends = _Parts(f"{FRACTION}{ZONE}", _fraction)


def parse_time(text: str) -> int:
    """Nanoseconds of a :data:`heartguard.models.base.Timestamp`; ValueError where the text is none."""
    return _minutes[text[:16]] + _seconds[text[16:19]] + _ends[text[19:]]


def parse_times(texts: Iterable[str]) -> list[int]:
    """The same for many."""
    minutes, seconds, ends = _minutes, _seconds, _ends
    return [minutes[text[:16]] + seconds[text[16:19]] + ends[text[19:]] for text in texts]
