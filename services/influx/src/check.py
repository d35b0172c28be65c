"""Finds what is wrong with a batch, point by point, and names all of it."""

from collections.abc import Mapping
from math import isfinite
from typing import NamedTuple

from heartguard.errors import Forbidden, Invalid
from heartguard.models.common import Detail
from heartguard.models.timeseries import FieldValue
from heartguard.timestamps import SECOND

from .points import MAX_SERIES, Problem, Rules, pointer, series_problems, shown, value_problem
from .tenancy import USER_TAG
from .times import format_time

MAX_DETAILS = 10_000


class _Shape(NamedTuple):
    """What all points of the same measurement, tags and fields have in common."""

    problems: list[Problem]
    foreign: bool


class Check:
    """Judges the points of one batch, one after the other, and keeps every violation.

    ``root`` begins the paths of violations; within a line there is no path.
    """

    def __init__(self, root: str, rules: Rules) -> None:
        self.root = root
        self.rules = rules
        self._shapes: dict[object, _Shape] = {}
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
    ) -> bool:
        """Look at one point; whether it is good."""
        key = (measurement, tuple(tags.items()), tuple(fields))
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = self._shape(measurement, tags, fields)
        problems = shape.problems
        for field, value in fields.items():
            if (type(value) is not float or not isfinite(value)) and (problem := value_problem(value)):
                problems = [*problems, (("fields", field), f"the field {shown(field)} {problem}")]
        if time is not None and not self.rules.oldest <= time <= self.rules.newest:
            problems = [*problems, (("timestamp",), self._time_problem(time))]
        if problems or shape.foreign:
            self._keep(index, problems, shape.foreign)
            return False
        return True

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
        return f"{self.root}/{index}" + (pointer(*within) if self.root == "/points" else "")

    def refuse_foreign(self) -> None:
        """Raise where a point is another user's; then nothing else needs saying."""
        if self._foreign:
            raise Forbidden("You may only write points of your own user_id", details=self._foreign)

    def _keep(self, index: int, problems: list[Problem], foreign: bool) -> None:
        for number, (within, message) in enumerate(problems):
            self.found(Detail(path=self.path(index, *within), message=message), first=number == 0)
        if foreign and len(self._foreign) < MAX_DETAILS:
            self._foreign.append(Detail(path=self.path(index, "tags", USER_TAG), message="is not your user_id"))

    def _shape(self, measurement: str, tags: Mapping[str, str], fields: Mapping[str, FieldValue | int]) -> _Shape:
        if len(self._shapes) >= MAX_SERIES:
            raise Invalid([Detail(path=self.root, message=f"a batch may hold {MAX_SERIES} different series")])
        problems = list(series_problems(self.rules.series(measurement, tags), fields))
        return _Shape(problems, self.rules.is_foreign(tags))

    def _time_problem(self, time: int) -> str:
        rules = self.rules
        if time < rules.earliest:
            return f"is before {format_time(rules.earliest)}, the earliest time that is stored here"
        if time > rules.newest:
            return f"is after {format_time(rules.newest // SECOND * SECOND)}, which is as far ahead as points may lie"
        return f"is older than the bucket's retention, which reaches back to {format_time(rules.oldest)}"
