"""What a point has to be, beyond the schema; the rules hold for every store and every format."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from math import isfinite
from typing import NamedTuple

from heartguard.errors import Invalid, ServiceError
from heartguard.models.common import Detail
from heartguard.models.timeseries import FieldValue

from .line_protocol import head
from .store import Series
from .tenancy import USER_TAG
from .times import MAX_TIME, MIN_TIME, format_time

MAX_NAME = 256
MAX_STRING = 65_536
MAX_SERIES_KEY = 65_535
MAX_SERIES = 100_000
MAX_DETAILS = 10_000
MAX_INT = 2**63

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

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
    if not text:
        return "is empty"
    if _CONTROL.search(text):
        return "holds a control character"
    if text.endswith("\\"):
        return "ends with a backslash"
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


class _Shape(NamedTuple):
    """What all points of the same measurement, tags and fields have in common."""

    series: Series
    problems: list[Problem]
    foreign: bool


class Check:
    """Judges the points of one batch, one after the other, and keeps every violation.

    ``root`` begins the paths of violations; within a line there is no path. ``user_id`` is the tag
    that all points must have, where they must; ``oldest`` the first time that the bucket still
    keeps, ``received`` the time of points without one: further such points of the same series
    follow at 1 ns, so that none replaces another.
    """

    def __init__(self, root: str, *, user_id: str | None, oldest: int, received: int) -> None:
        self._root = root
        self._user_id = user_id
        self._oldest = max(oldest, MIN_TIME)
        self._received = received
        self._shapes: dict[object, _Shape] = {}
        self._untimed: dict[Series, int] = {}
        self._foreign: list[Detail] = []
        self._found: list[Detail] = []
        self._first_of_each: list[Detail] = []
        self.violations = 0

    def judge(
        self,
        index: int,
        measurement: str,
        tags: Mapping[str, str],
        fields: Mapping[str, FieldValue | int],
        time: int | None,
    ) -> tuple[Series, int] | None:
        """Series and time of a good point; None for a bad one."""
        key = (measurement, tuple(tags.items()), tuple(fields))
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = self._shape(measurement, tags, fields)
        problems = shape.problems
        for field, value in fields.items():
            if (type(value) is not float or not isfinite(value)) and (problem := value_problem(value)):
                problems = [*problems, (("fields", field), f"the field {shown(field)} {problem}")]
        if time is None:
            time = self._received + self._untimed.get(shape.series, 0)
            self._untimed[shape.series] = time - self._received + 1
        elif not self._oldest <= time <= MAX_TIME:
            problems = [*problems, (("timestamp",), self._time_problem(time))]
        if problems or shape.foreign:
            self._keep(index, problems, shape.foreign)
            return None
        return shape.series, time

    def found(self, detail: Detail, *, first: bool = True) -> None:
        """Keep a violation; ``first`` says that it is the first of its point."""
        self.violations += 1
        if first and len(self._first_of_each) < MAX_DETAILS:
            self._first_of_each.append(detail)
        if len(self._found) < MAX_DETAILS:
            self._found.append(detail)

    @property
    def full(self) -> bool:
        """Whether so many points are bad that there is no use in looking at more."""
        return len(self._first_of_each) >= MAX_DETAILS

    @property
    def summary(self) -> str | None:
        """What to say of the violations, where not all are named."""
        return f"At least {MAX_DETAILS} points are wrong; these come first" if self.full else None

    def details(self) -> list[Detail]:
        """Every violation; or, where there are very many, the first of each bad point."""
        return self._found if self.violations <= MAX_DETAILS else self._first_of_each

    def path(self, index: int, *within: str) -> str:
        """The path of a point, or of something within it."""
        return f"{self._root}/{index}" + (pointer(*within) if self._root == "/points" else "")

    def refuse_foreign(self) -> None:
        """Raise where a point is another user's; then nothing else needs saying."""
        if self._foreign:
            raise ServiceError(403, "You may only write points of your own user_id", details=self._foreign)

    def _keep(self, index: int, problems: list[Problem], foreign: bool) -> None:
        for number, (within, message) in enumerate(problems):
            self.found(Detail(path=self.path(index, *within), message=message), first=number == 0)
        if foreign and len(self._foreign) < MAX_DETAILS:
            self._foreign.append(Detail(path=self.path(index, "tags", USER_TAG), message="is not your user_id"))

    def _shape(self, measurement: str, tags: Mapping[str, str], fields: Mapping[str, FieldValue | int]) -> _Shape:
        if len(self._shapes) >= MAX_SERIES:
            raise Invalid([Detail(path=self._root, message=f"a batch may hold {MAX_SERIES} different series")])
        foreign = False
        if self._user_id is not None:
            foreign = tags.get(USER_TAG, self._user_id) != self._user_id
            tags = {**tags, USER_TAG: self._user_id}
        series = Series(measurement, tuple(sorted(tags.items())))
        return _Shape(series, list(_shape_problems(series, fields)), foreign)

    def _time_problem(self, time: int) -> str:
        if MIN_TIME <= time <= MAX_TIME:
            return f"is older than the bucket's retention, which reaches back to {format_time(self._oldest)}"
        return "is not within the years 1678 to 2261"


def _shape_problems(series: Series, fields: Mapping[str, object]) -> Iterator[Problem]:
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
    for field in fields:
        if problem := name_problem(field, "time"):
            yield ("fields", field), f"the field key {shown(field)} {problem}"
    if _too_long(series, fields):
        yield ("tags",), f"measurement, tags and field together are longer than {MAX_SERIES_KEY} bytes"


def _too_long(series: Series, fields: Iterable[str]) -> bool:
    """Whether the store's key of a series would be: the beginning of its line, four bytes and the field."""
    characters = len(series.measurement) + sum(len(key) + len(value) + 2 for key, value in series.tags)
    if characters + MAX_NAME < MAX_SERIES_KEY // 4 - 4:
        return False  # four bytes a character at most; where one is escaped, it and its backslash are two
    longest = max(len(field.encode(errors="replace")) for field in fields)
    return len(head(*series).encode(errors="replace")) + 4 + longest > MAX_SERIES_KEY
