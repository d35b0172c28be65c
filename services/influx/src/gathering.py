"""The fast way through a batch: points put together by series, and their values by field, then judged in bulk.

It only says whether all is well. Where it is not, :class:`.check.Check` goes through the points
one by one and names what is wrong.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import NamedTuple, cast

from heartguard.models.common import Detail
from heartguard.models.timeseries import FieldValue

from .line_protocol import Entry
from .points import MAX_SERIES, Rules, series_problems, value_problem
from .store import Series
from .times import MAX_TIME

Value = FieldValue | int


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


class Group:
    """The points of one series, in the batch's order."""

    __slots__ = ("rows", "series", "times", "untimed")

    def __init__(self, series: Series) -> None:
        self.series = series
        self.times: list[int] = []
        self.rows: list[Mapping[str, Value]] = []
        self.untimed = 0


def gather(entries: Iterable[Entry | Detail], rules: Rules) -> Gathered | None:
    """The good points of a batch; None where one is bad, or there is none."""
    count = 0
    columns: list[Column] = []
    for group in _grouped(entries, rules):
        found = _columns(group)
        if not _is_good(group, found, rules):
            return None
        count += len(group.rows)
        columns += found
    return Gathered(count, columns) if count else None


def _is_good(group: Group, columns: list[Column], rules: Rules) -> bool:
    return (
        rules.oldest <= min(group.times)
        and max(group.times) <= MAX_TIME
        and not any(series_problems(group.series, [column.field for column in columns]))
        and all(_are_good(column.values) for column in columns)
    )


def _grouped(entries: Iterable[Entry | Detail], rules: Rules) -> Iterable[Group]:
    """None at all, where an entry is no point or another user's, or there are too many series."""
    by_key: dict[tuple[str, ...], Group] = {}
    by_series: dict[Series, Group] = {}
    group: Group | None = None
    previous: Mapping[str, str] = {}
    for entry in entries:
        if isinstance(entry, Detail):
            return ()
        _, measurement, tags, fields, time = entry
        if group is None or tags != previous or measurement != group.series.measurement:
            key = (measurement, *tags, *tags.values())
            group = by_key.get(key)
            if group is None:
                if len(by_key) >= MAX_SERIES or rules.is_foreign(tags):
                    return ()
                series = rules.series(measurement, tags)
                group = by_key[key] = by_series.setdefault(series, Group(series))
            previous = tags
        if time is None:
            time = rules.received + group.untimed
            group.untimed += 1
        group.times.append(time)
        group.rows.append(fields)
    return by_series.values()


def _columns(group: Group) -> list[Column]:
    rows = group.rows
    if len(set(map(len, rows))) == 1:
        try:
            return [Column(group.series, field, group.times, [row[field] for row in rows]) for field in rows[0]]
        except KeyError:
            pass  # as many fields in each point, but not the same
    columns: dict[str, tuple[list[int], list[Value]]] = {}
    for time, row in zip(group.times, rows, strict=True):
        for field, value in row.items():
            times, values = columns.setdefault(field, ([], []))
            times.append(time)
            values.append(value)
    return [Column(group.series, field, *column) for field, column in columns.items()]


def _are_good(values: Sequence[Value]) -> bool:
    if set(map(type, values)) == {float}:
        return all(map(isfinite, cast("Sequence[float]", values)))
    return not any(map(value_problem, values))
