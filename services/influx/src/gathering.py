"""The fast way through a batch: points put in order by series, and their values by field, judged in bulk.

It only says whether all is well. Where it is not, :class:`.check.Check` goes through the points
one by one and names what is wrong.

A batch is some megabytes of small objects, so that to look at each once more costs more than what
is done with it: hence whole columns, one after the other, and no objects of its own for points.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
from math import isfinite
from operator import itemgetter
from typing import NamedTuple, cast

from heartguard.models.timeseries import FieldValue

from . import heads
from .heads import Heads
from .points import MAX_SERIES, Rules, field_problem, series_problems, value_problem
from .store import Series

Value = FieldValue | int
Fields = Mapping[str, Value]


class Points(NamedTuple):
    """The points of a batch: their measurements, and so on."""

    measurements: Sequence[str]
    tags: Sequence[Mapping[str, str]]
    fields: Sequence[Fields]
    times: Sequence[int | None]


class Column(NamedTuple):
    """Values of one field of one series, with the time of each, in the batch's order."""

    series: Series
    field: str
    times: Sequence[int]
    values: Sequence[Value]


class Gathered(NamedTuple):
    """Good points, how many and by column."""

    points: int
    columns: list[Column]


class _Unfit(Exception):
    """Another user's point, or too many series."""


class _Numbers(dict[bytes, int]):
    """The number of the series of each head; they count from 0."""

    def __init__(self, rules: Rules, known: Heads) -> None:
        super().__init__()
        self.series: list[Series] = []
        self.unknown: dict[bytes, Series] = {}
        self._rules = rules
        self._known = known
        self._by_series: dict[bytes, int] = {}

    def __missing__(self, head: bytes) -> int:
        if len(self) >= MAX_SERIES:
            raise _Unfit
        series = self._known.series(head, self._rules) or self._read(head)
        self[head] = number = self._by_series.setdefault(series.key, len(self.series))
        if number == len(self.series):
            self.series.append(series)
        return number

    def _read(self, head: bytes) -> Series:
        measurement, tags = heads.read(head)
        if self._rules.is_foreign(tags):
            raise _Unfit
        self.unknown[head] = series = self._rules.series(measurement, tags)
        return series


def gather(points: Points, rules: Rules, known: Heads) -> Gathered | None:
    """The points of a batch, if all are good and there is one."""
    numbers = _Numbers(rules, known)
    try:
        by_point = list(map(numbers.__getitem__, map(heads.encode, zip(points.measurements, points.tags, strict=True))))
    except _Unfit:
        return None
    times = _times(points.times, by_point, rules)
    given = times if times is points.times else [time for time in points.times if time is not None]
    if not by_point or (given and not (rules.oldest <= min(given) and max(given) <= rules.newest)):
        return None
    columns = list(_columns(numbers.series, by_point, times, points.fields))
    if not _are_good(columns, set(numbers.unknown.values())):
        return None
    known.learn(numbers.unknown.items(), rules)
    return Gathered(len(by_point), columns)


def _times(times: Sequence[int | None], by_point: list[int], rules: Rules) -> Sequence[int]:
    if None not in times:
        return cast("Sequence[int]", times)
    untimed: dict[int, Iterator[int]] = {}
    return [
        next(untimed.setdefault(number, count(rules.received))) if time is None else time
        for number, time in zip(by_point, times, strict=True)
    ]


def _columns(
    series: list[Series], by_point: list[int], times: Sequence[int], fields: Sequence[Fields]
) -> Iterator[Column]:
    """That all points have the same fields is the common case."""
    names = list(fields[0])
    if sum(map(len, fields)) == len(names) * len(fields):
        try:
            columns = [list(map(itemgetter(name), fields)) for name in names]
        except KeyError:
            pass
        else:
            yield from _alike(series, by_point, times, names, columns)
            return
    mixed: dict[tuple[int, str], tuple[list[int], list[Value]]] = {}
    for number, time, point in zip(by_point, times, fields, strict=True):
        for name, value in point.items():
            column = mixed.setdefault((number, name), ([], []))
            column[0].append(time)
            column[1].append(value)
    for (number, name), column in mixed.items():
        yield Column(series[number], name, *column)


def _alike(
    series: list[Series],
    by_point: list[int],
    times: Sequence[int],
    names: list[str],
    columns: Sequence[Sequence[Value]],
) -> Iterator[Column]:
    """The columns of all points, cut into those of each series."""
    if len(series) > 1:
        in_order = itemgetter(*sorted(range(len(by_point)), key=by_point.__getitem__))
        times = in_order(times)
        columns = [in_order(column) for column in columns]
    begin = 0
    for number, points in sorted(Counter(by_point).items()):
        end = begin + points
        for name, column in zip(names, columns, strict=True):
            yield Column(series[number], name, times[begin:end], column[begin:end])
        begin = end


def _are_good(columns: list[Column], unknown: set[Series]) -> bool:
    if any(map(field_problem, {column.field for column in columns})):
        return False
    fields: dict[Series, list[str]] = {}
    if unknown:
        for column in columns:
            fields.setdefault(column.series, []).append(column.field)
    if any(any(series_problems(series, fields[series])) for series in unknown):
        return False
    values = list(chain.from_iterable(column.values for column in columns))
    if set(map(type, values)) == {float}:
        return all(map(isfinite, cast("Sequence[float]", values)))
    return not any(map(value_problem, values))
