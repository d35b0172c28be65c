"""What a point has to be, beyond the schema; the rules hold for every store and every format."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite

from heartguard.models.timeseries import FieldValue

from .line_protocol import head
from .store import Series
from .tenancy import USER_TAG
from .times import MAX_TIME, MIN_TIME

MAX_NAME = 256
MAX_STRING = 65_536
MAX_SERIES_KEY = 65_535
MAX_SERIES = 100_000
MAX_INT = 2**63

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

_AMBIGUOUS = re.compile(r'\\[,= "]')
"""InfluxDB reads a line in several ways, and in one of them a backslash takes whatever follows it along."""

Problem = tuple[tuple[str, ...], str]
"""Where in the point, and what."""


def shown(name: str) -> str:
    """A name as it can stand in a message."""
    return repr(name if len(name) <= 64 else name[:64] + "…")


def pointer(*parts: str) -> str:
    """An RFC 6901 pointer; a part too long to repeat ends it."""
    path = ""
    for part in parts:
        if len(part) > MAX_NAME:
            break
        path += "/" + part.replace("~", "~0").replace("/", "~1")
    return path


def text_problem(text: str) -> str | None:
    """What keeps a name or a tag's value from being stored; line protocol could not carry it either."""
    if text.isalnum():
        return None
    if not text:
        return "is empty"
    if _CONTROL.search(text):
        return "holds a control character"
    if text.endswith("\\"):
        return "ends with a backslash"
    if "\\" in text and _AMBIGUOUS.search(text):
        return "holds a backslash before a comma, an equals sign, a space or a quote"
    return None


def name_problem(name: str, *reserved: str) -> str | None:
    """What is wrong with the name of a measurement, tag or field."""
    return f"is longer than {MAX_NAME} characters" if len(name) > MAX_NAME else _short_name_problem(name, reserved)


@lru_cache(maxsize=4096)
def _short_name_problem(name: str, reserved: tuple[str, ...]) -> str | None:
    if name.startswith("_") or name in reserved:
        return "is a reserved name"
    return text_problem(name)


def value_problem(value: FieldValue | int) -> str | None:
    """What is wrong with a field's value."""
    if isinstance(value, float):
        return None if isfinite(value) else "is not a finite number"
    if isinstance(value, str):
        if len(value.encode(errors="replace")) > MAX_STRING:
            return f"is longer than {MAX_STRING} bytes"
        return "holds a character that XML cannot carry" if _NOT_XML.search(value) else None
    return None if -MAX_INT <= value < MAX_INT else "is beyond 64 bits"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What holds for the points of one batch.

    ``user_id`` is the tag that all points must have, where they must. Times are in nanoseconds since the epoch:
    ``earliest`` and ``newest`` are the bounds that the service sets, ``oldest`` is the first time within them that the
    bucket still keeps, ``received`` the time of points without one: further such points of the same series follow at
    1 ns, so that none replaces another.
    """

    user_id: str | None
    received: int
    earliest: int = MIN_TIME
    oldest: int = MIN_TIME
    newest: int = MAX_TIME

    def is_foreign(self, tags: Mapping[str, str]) -> bool:
        """Whether the point is another user's."""
        return self.user_id is not None and tags.get(USER_TAG, self.user_id) != self.user_id

    def series(self, measurement: str, tags: Mapping[str, str]) -> Series:
        if self.user_id is not None:
            tags = {**tags, USER_TAG: self.user_id}
        return Series(measurement, tuple(sorted(tags.items())))


def series_problems(series: Series, fields: Collection[str]) -> Iterator[Problem]:
    """What is wrong with the names and tags of points of a series that have these fields."""
    yield from head_problems(series)
    for field in fields:
        if problem := field_problem(field):
            yield ("fields", field), f"the field key {shown(field)} {problem}"
    if not is_short(series) and _too_long(series, fields):
        yield ("tags",), f"measurement, tags and field together are longer than {MAX_SERIES_KEY} bytes"


def head_problems(series: Series) -> Iterator[Problem]:
    """What is wrong whatever the fields are."""
    measurement = series.measurement
    if problem := name_problem(measurement):
        yield ("measurement",), f"the measurement {problem}"
    elif measurement.startswith("#"):
        yield ("measurement",), "the measurement begins with #, as a comment does"
    for key, value in series.tags:
        if problem := name_problem(key, "time"):
            yield ("tags", key), f"the tag key {shown(key)} {problem}"
        if problem := text_problem(value):
            yield ("tags", key), f"the value of the tag {shown(key)} {problem}"


def field_problem(field: str) -> str | None:
    return name_problem(field, "time")


def is_short(series: Series) -> bool:
    """Whether its key cannot be too long, with whatever field.

    A character has four bytes at most; where one is escaped, it and its backslash have two.
    """
    characters = len(series.measurement)
    for key, value in series.tags:
        characters += len(key) + len(value) + 2
    return characters + MAX_NAME < MAX_SERIES_KEY // 4 - 4


def _too_long(series: Series, fields: Iterable[str]) -> bool:
    """Whether the store's key of a series would be: the beginning of its line, four bytes and the field."""
    longest = max(len(field.encode(errors="replace")) for field in fields)
    return len(head(series.measurement, series.tags).encode(errors="replace")) + 4 + longest > MAX_SERIES_KEY
