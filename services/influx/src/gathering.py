"""The fast way through a batch: points put together by series, and their values by field, then judged in bulk.

It only says whether all is well. Where it is not, :class:`.check.Check` goes through the points
one by one and names what is wrong.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from math import isfinite
from typing import NamedTuple, cast

from heartguard.models.common import Detail
from heartguard.models.timeseries import FieldValue

from .heads import Heads, Key, key_of
from .line_protocol import Entry
from .points import MAX_SERIES, Rules, field_problem, series_problems, value_problem
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
    """The points of one series, in the batch's order; ``head`` where that is not known to be good.

    ``follower`` is the group of the point that last came after one of these: devices take turns.
    """

    __slots__ = ("follower", "head", "rows", "series", "tags", "times", "untimed")

    def __init__(self, series: Series, tags: Mapping[str, str], head: Key | None) -> None:
        self.series = series
        self.tags = tags
        self.head = head
        self.times: list[int] = []
        self.rows: list[Mapping[str, Value]] = []
        self.untimed = 0
        self.follower: Group | None = None


def gather(entries: Iterable[Entry | Detail], rules: Rules, heads: Heads) -> Gathered | None:
    """The good points of a batch; None where one is bad, or there is none."""
    groups = _grouped(entries, rules, heads)
    columns = [_columns(group) for group in groups]
    if not groups or not all(map(_is_good, groups, columns)) or not _are_good(groups, columns, rules):
        return None
    heads.learn((group.head, group.series) for group in groups if group.head)
    return Gathered(sum(len(group.times) for group in groups), [*chain.from_iterable(columns)])


def _is_good(group: Group, columns: list[Column]) -> bool:
    return group.head is None or not any(series_problems(group.series, [column.field for column in columns]))


def _are_good(groups: list[Group], columns: list[list[Column]], rules: Rules) -> bool:
    """Whether times, fields and values are."""
    times = [group.times for group in groups]
    fields = {column.field for column in chain.from_iterable(columns)}
    values = [*chain.from_iterable(column.values for column in chain.from_iterable(columns))]
    return (
        rules.oldest <= min(map(min, times))
        and max(map(max, times)) <= MAX_TIME
        and not any(map(field_problem, fields))
        and (_are_finite(values) if set(map(type, values)) == {float} else not any(map(value_problem, values)))
    )


def _are_finite(values: Sequence[Value]) -> bool:
    return all(map(isfinite, cast("Sequence[float]", values)))


class _Unfit(Exception):
    """A point that no batch may hold, or too many series."""


class Groups:
    """The groups of a batch, by series."""

    def __init__(self, rules: Rules, heads: Heads) -> None:
        self._rules = rules
        self._heads = heads
        self._by_key: dict[Key, Group] = {}
        self._by_series: dict[Series, Group] = {}

    def of(self, measurement: str, tags: Mapping[str, str]) -> Group:
        key = key_of(measurement, tags, self._rules)
        return self._by_key.get(key) or self._begin(key, measurement, tags)

    def _begin(self, key: Key, measurement: str, tags: Mapping[str, str]) -> Group:
        if len(self._by_key) >= MAX_SERIES or self._rules.is_foreign(tags):
            raise _Unfit
        known = self._heads.series(key)
        series = known or self._rules.series(measurement, tags)
        group = self._by_series.setdefault(series, Group(series, tags, None if known else key))
        self._by_key[key] = group
        return group

    def __iter__(self) -> Iterator[Group]:
        return iter(self._by_series.values())


def _grouped(entries: Iterable[Entry | Detail], rules: Rules, heads: Heads) -> list[Group]:
    """None at all, where an entry is no point or another user's, or there are too many series."""
    groups = Groups(rules, heads)
    group: Group | None = None
    for entry in entries:
        if isinstance(entry, Detail):
            return []
        _, measurement, tags, fields, time = entry
        # This is done for every point, and to ask the two likely groups is cheaper than to find one by key.
        if group is None or tags != group.tags or measurement != group.series.measurement:
            previous, group = group, group and group.follower
            if group is None or tags != group.tags or measurement != group.series.measurement:
                try:
                    group = groups.of(measurement, tags)
                except _Unfit:
                    return []
                if previous:
                    previous.follower = group
        if time is None:
            time = rules.received + group.untimed
            group.untimed += 1
        group.times.append(time)
        group.rows.append(fields)
    return [*groups]


def _columns(group: Group) -> list[Column]:
    """As many fields in each point as in the first, and the same ones, is the common case."""
    rows, series, times = group.rows, group.series, group.times
    first = rows[0]
    if sum(map(len, rows)) == len(first) * len(rows):
        try:
            return [Column(series, field, times, [row[field] for row in rows]) for field in first]
        except KeyError:
            pass
    columns: dict[str, tuple[list[int], list[Value]]] = {}
    for time, row in zip(times, rows, strict=True):
        for field, value in row.items():
            column = columns.setdefault(field, ([], []))
            column[0].append(time)
            column[1].append(value)
    return [Column(series, field, *column) for field, column in columns.items()]
