"""An answer as long as the limits allow: what is written for it, in every format, and whether all of it comes back.

Short answers take other ways than long ones through stores, services and proxies: compression, chunks, spooling.
"""

import gzip
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ...models.timeseries import MAX_POINTS, FieldValue, Result
from ...timestamps import SECOND, parse_times
from .wrong import Wrong

MEASUREMENT = "validate"

_APART = 50_000_001
"""Nanoseconds from one point to the next, so that times have nine digits after the point."""


@dataclass(frozen=True)
class Part:
    """Points with the tag ``by``, numbered from ``first``; ``fields`` are those of the point of a number."""

    by: str
    first: int
    points: int
    fields: Callable[[int], dict[str, FieldValue]]

    def numbers(self) -> range:
        return range(self.first, self.first + self.points)


def _of_every_kind(number: int) -> dict[str, FieldValue]:
    note = f"<é & ü> {number}" if number % 2 else str(number)  # half of them look like numbers
    return {"bpm": 60 + number / 1000, "regular": number % 3 > 0, "note": note}


BATCH = Part("batch", 0, MAX_POINTS, _of_every_kind)
LINES = Part("lines", MAX_POINTS, MAX_POINTS, lambda n: {"bpm": n / 8, "beats": n})
GZIP = Part("gzip", 2 * MAX_POINTS, 25_000, lambda n: {"bpm": n / 16, "beats": -n})
PARTS = (BATCH, LINES, GZIP)
POINTS = GZIP.first + GZIP.points

SPAN = POINTS * _APART // SECOND + 1
"""Seconds from the first point to the last: well within the hour that a bucket of the run keeps."""


def points(part: Part, start: int) -> list[dict[str, Any]]:
    """For a batch in JSON or XML; ``start`` is in nanoseconds since the epoch."""
    return [
        {
            "measurement": MEASUREMENT,
            "tags": {"by": part.by},
            "fields": part.fields(number),
            "timestamp": _rfc3339(start + number * _APART),
        }
        for number in part.numbers()
    ]


def lines(part: Part, start: int) -> bytes:
    """The same in line protocol, in nanoseconds."""
    return "\n".join(_line(part, number, start + number * _APART) for number in part.numbers()).encode()


def zipped_lines(part: Part, start: int) -> bytes:
    return gzip.compress(lines(part, start), 1)


def check_all(start: int, results: Sequence[Result]) -> bool:
    """Whether they are the values of all parts, oldest first. Raises :class:`Wrong`, which says what is not."""
    times = parse_times(row.time for row in results)
    if times != sorted(times):
        raise Wrong("the points do not come oldest first")
    found = {
        (at, row.field, tuple(row.tags.items())): _meaning(row.value) for at, row in zip(times, results, strict=True)
    }
    wanted = _written(start)
    if found != wanted or len(results) != len(wanted):
        raise Wrong(f"{_first_difference(wanted, found)}: {len(results)} values came back, {len(wanted)} were written")
    return True


Key = tuple[int, str, tuple[tuple[str, str], ...]]


@lru_cache(maxsize=1)
def _written(start: int) -> dict[Key, Any]:
    return {
        (start + number * _APART, field, (("by", part.by),)): _meaning(value)
        for part in PARTS
        for number in part.numbers()
        for field, value in part.fields(number).items()
    }


def _first_difference(wanted: dict[Key, Any], found: dict[Key, Any]) -> str:
    for key, value in wanted.items():
        at, field, tags = key
        name = f"{field} of {_rfc3339(at)} by {dict(tags)['by']}"
        if key not in found:
            return f"{name} is missing"
        if found[key] != value:
            return f"{name} is {found[key]!r} instead of {value!r}"
    return "there is more than was written"


def _meaning(value: FieldValue) -> Any:
    """To Python true is 1."""
    return str(value).lower() + " as a boolean" if isinstance(value, bool) else value


def _line(part: Part, number: int, at: int) -> str:
    fields = (f"{name}={value}{'i' * isinstance(value, int)}" for name, value in part.fields(number).items())
    return f"{MEASUREMENT},by={part.by} {','.join(fields)} {at}"


def _rfc3339(at: int) -> str:
    seconds, nanoseconds = divmod(at, SECOND)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09}Z"
