"""Reading points from InfluxDB, part by part, until there is as much as was asked for.

So what a question costs InfluxDB and this process depends on the answer, not on what the range holds: a part has so
many windows, or so many points of each series, and where that is too much after all, because there are many series or
a query needs more memory than InfluxDB gives it, the part is asked for again in smaller ones.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from heapq import nsmallest
from math import isfinite

from heartguard.models.timeseries import Aggregate
from heartguard.timestamps import SECOND

from . import influx_flux as flux
from .errors import Overflow, TooManySeries, TooMuch
from .influx_answers import MAX_SERIES, Found, Value, read
from .influx_client import InfluxClient
from .influx_http import InfluxError
from .store import Place, Row, Selection, place_of
from .times import window_stop

MAX_INT = 2**63 - 1
EXTRA_ROWS = 100_000
"""How many more rows a part may have than are asked for."""
GROWTH = 4
SHRINKING = 8
COSTLY: frozenset[Aggregate] = frozenset({"median", "stddev"})
"""What InfluxDB's storage engine does not compute by itself: each window then takes a kilobyte and more of memory."""
COSTLY_WINDOWS = 4_000
"""In a part, more only where most are empty."""
LONGEST_WINDOW = 90 * 86_400 * SECOND
"""InfluxDB counts with windows in 64 bits of nanoseconds, without a look at overflows, after which it never ends or
leaves windows out. Years 1678 to 2261 leave room for windows of a hundred days at both ends."""

Rows = dict[Place, Row]


class _TooLarge(Exception):
    """The part has too many rows, or needs too much memory."""


def select_rows(client: InfluxClient, bucket: str, selection: Selection, integers: Collection[str] = ()) -> list[Row]:
    """See :meth:`.store.Store.select`. ``integers`` are those of the chosen fields whose values are."""
    reader = _Reader(client, bucket, integers, selection)
    return reader.raw() if selection.aggregate is None else reader.windows(selection.aggregate)


class _Reader:
    """Answers one question."""

    def __init__(self, client: InfluxClient, bucket: str, integers: Collection[str], selection: Selection) -> None:
        self._client = client
        self._bucket = bucket
        self._integers = integers
        self._selection = selection

    def raw(self) -> list[Row]:
        """Each series gives its first points, up to a share; what they give is whole up to where one has given all.

        A part is short at first, as for a point a second: InfluxDB goes through all of a range, whatever the limit.
        """
        rows: list[Row] = []
        begin: int | None = self._selection.start
        share = self._selection.limit
        whole = self._selection.stop - self._selection.start
        span = whole if self._selection.patient else self._selection.limit * SECOND
        while begin is not None and len(rows) < self._selection.limit:
            missing = self._selection.limit - len(rows)
            share = min(share, missing)
            try:
                end = min(begin + span, self._selection.stop)
                found = self._read(flux.RAW, replace(self._selection, start=begin, stop=end, limit=share))
                part = [Row(one.time, one.field, one.value, one.tags) for one in found]
            except _TooLarge:
                share = self._smaller(share)
                continue
            horizon = _horizon(part, share)
            if horizon is not None:
                part = [row for row in part if row.time <= horizon]
            rows += nsmallest(missing, part, key=place_of)
            if horizon is not None:
                begin = horizon + 1 if horizon + 1 < self._selection.stop else None
            elif len(part) < missing:
                begin = self._next(end)
                span *= GROWTH
            share *= GROWTH
        return rows

    def windows(self, aggregate: Aggregate) -> list[Row]:
        rows: list[Row] = []
        window, stop = self._selection.window, self._selection.stop
        begin: int | None = self._selection.start
        most = COSTLY_WINDOWS if aggregate in COSTLY else MAX_INT
        one_by_one = aggregate in COSTLY and window > LONGEST_WINDOW
        span = 1 if one_by_one else min(self._selection.limit, most)
        while begin is not None and len(rows) < self._selection.limit:
            end = min((begin // window + span) * window, stop)
            part = replace(self._selection, start=begin, stop=end, limit=self._selection.limit - len(rows))
            try:
                found = self._aggregated(aggregate, part)
            except _TooLarge:
                span = self._smaller(span)
                continue
            rows += nsmallest(part.limit, found.values(), key=place_of)
            begin = self._next(end) if len(found) < part.limit else None
            if len(found) * GROWTH < most and not one_by_one:
                span *= GROWTH
        return rows

    def _smaller(self, size: int) -> int:
        """The size of the next part after one that was too large."""
        if self._selection.patient:
            raise TooMuch
        if size == 1:
            raise TooManySeries(MAX_SERIES)
        return max(1, size // SHRINKING)

    def _next(self, begin: int) -> int | None:
        """The time of the next point from there on."""
        if begin >= self._selection.stop:
            return None
        part = replace(self._selection, start=begin, limit=1)
        try:
            return min((found.time for found in self._read(flux.FIRST, part, most=MAX_INT)), default=None)
        except _TooLarge:
            raise TooMuch from None

    def _aggregated(self, aggregate: Aggregate, part: Selection) -> Rows:
        if part.window <= LONGEST_WINDOW:
            rows = self._of_short_windows(aggregate, part)
        elif aggregate in COSTLY:
            rows = self._of_one_window(aggregate, part)
        else:
            rows = self._of_long_windows(aggregate, part)
        if not all(isfinite(row.value) for row in rows.values() if isinstance(row.value, float)):
            raise Overflow(aggregate)
        return rows

    def _of_short_windows(self, aggregate: Aggregate, part: Selection) -> Rows:
        if aggregate == "spread":
            return _spread(self._by_result(part, "min", "max"))
        if aggregate in ("sum", "mean"):
            rows = self._by_result(part, aggregate)[aggregate]
            return self._without_wrapped(aggregate, part, rows) if self._integers else rows
        if aggregate == "median":  # InfluxDB knows it of floats only
            return self._by_result(part, aggregate, convert=flux.TO_FLOAT if self._integers else "")[aggregate]
        # Of deviations some windows are left out afterwards, so that the limit comes later.
        rows = self._by_result(part, aggregate, limited=aggregate != "stddev")[aggregate]
        return self._of_several(part, rows) if aggregate == "stddev" else rows

    def _of_one_window(self, aggregate: Aggregate, part: Selection) -> Rows:
        """The whole part is one window, too long for InfluxDB to know as one."""
        stop = window_stop(part.start // part.window, part.window, part.stop)
        found = self._read(flux.whole(aggregate, flux.TO_FLOAT if self._integers else ""), part)
        rows = _by_place(Row(stop, one.field, one.value, one.tags) for one in found)
        if aggregate != "stddev" or _all_finite(rows):
            return rows
        counted = self._read(flux.whole("count", flux.TO_FLOAT), part)
        return _chosen(rows, (Row(stop, one.field, one.value, one.tags) for one in counted if int(one.value) > 1))

    def _of_long_windows(self, aggregate: Aggregate, part: Selection) -> Rows:
        """From windows that are short enough for InfluxDB and fit into the long ones."""
        short = replace(part, window=_fitting(part.window), limit=MAX_INT)
        if aggregate == "spread":
            return _spread({name: self._of_long_windows(name, part) for name in ("min", "max")})
        if aggregate == "mean":
            sums, counts = self._of_long_windows("sum", part), self._of_long_windows("count", part)
            return {
                place: row._replace(value=row.value / counts[place].value)  # type: ignore[operator]
                for place, row in sums.items()
                if place in counts
            }
        rows: Rows = {}
        for row in sorted(self._of_short_windows(aggregate, short).values(), key=place_of):
            stop = window_stop((row.time - 1) // part.window, part.window, part.stop)
            row = row._replace(time=stop)
            before = rows.get(place_of(row))
            rows[place_of(row)] = row if before is None else row._replace(value=_joined(aggregate, before, row))
        return {place: row._replace(value=_as_stored(row.value)) for place, row in rows.items()}

    def _without_wrapped(self, aggregate: Aggregate, part: Selection, rows: Rows) -> Rows:
        """Do what is wrong again with floats: InfluxDB sums integers up in 64 bits, for their mean too."""
        integers = replace(part, fields=self._integers)
        bounds = self._by_result(integers, "min", "max", "count")
        largest: dict[Place, int] = {}
        for place, row in [*bounds["min"].items(), *bounds["max"].items()]:
            largest[place] = max(largest.get(place, 0), abs(int(row.value)))
        risky = {place for place, row in bounds["count"].items() if largest.get(place, 0) * int(row.value) > MAX_INT}
        if risky:
            for place, row in self._by_result(integers, aggregate, convert=flux.TO_FLOAT)[aggregate].items():
                if place in risky and (aggregate == "mean" or abs(row.value) >= MAX_INT):  # type: ignore[arg-type]
                    rows[place] = row
        return rows

    def _of_several(self, part: Selection, rows: Rows) -> Rows:
        """A single point has no deviation. Of several, which are very large, it may be no number all the same."""
        if _all_finite(rows):
            return rows
        counts = self._by_result(part, "count", limited=False)["count"]
        return _chosen(rows, (row for row in counts.values() if int(row.value) > 1))

    def _by_result(self, part: Selection, *functions: str, convert: str = "", limited: bool = True) -> dict[str, Rows]:
        """What each function gives. InfluxDB answers in whatever order it has them."""
        results: dict[str, Rows] = {function: {} for function in functions}
        for found in self._read(flux.windows(*functions, convert=convert, limited=limited), part):
            row = Row(found.time, found.field, found.value, found.tags)
            results[found.result][place_of(row)] = row
        return results

    def _read(self, query: str, part: Selection, most: int | None = None) -> Iterator[Found]:
        """The rows of an answer, of which there may be so many. Raises :class:`_TooLarge`."""
        if most is None:
            most = min(part.limit, self._selection.limit) + (0 if self._selection.patient else EXTRA_ROWS)
        try:
            found = read(self._client.query(query, flux.extern(self._bucket, part)), patient=self._selection.patient)
            for number, row in enumerate(found):
                if number == most:
                    raise _TooLarge
                yield row
        except InfluxError as error:
            if error.is_out_of_memory:
                raise _TooLarge from None
            raise


def _horizon(rows: Collection[Row], share: int) -> int | None:
    """The time up to which no series is cut short; None where none is."""
    last: dict[tuple[str, tuple[tuple[str, str], ...]], list[int]] = {}
    for row in rows:
        seen = last.setdefault(place_of(row)[1:], [0, 0])
        seen[0] += 1
        seen[1] = row.time
    return min((time for count, time in last.values() if count >= share), default=None)


def _fitting(window: int) -> int:
    """The longest window of at most :data:`LONGEST_WINDOW` of which a whole number makes that longer one."""
    least = -(-window // LONGEST_WINDOW)
    divisors: list[int] = [
        2**i * 5**j for i in range(10) for j in range(10)
    ]  # of a window of whole seconds in nanoseconds
    return window // min(number for number in divisors if number >= least)


def _joined(aggregate: Aggregate, before: Row, row: Row) -> Value:
    """One value of two windows, of which ``before`` is the earlier."""
    first, last = before.value, row.value
    match aggregate:
        case "min":
            return min(first, last)
        case "max":
            return max(first, last)
        case "first":
            return first
        case "last":
            return last
        case _:
            return first + last  # type: ignore[operator]


def _as_stored(value: Value) -> Value:
    """An integer that 64 bits do not hold becomes a float."""
    return float(value) if type(value) is int and not -MAX_INT - 1 <= value <= MAX_INT else value


def _spread(found: dict[str, Rows]) -> Rows:
    """The storage engine knows the least and the greatest value, but not their difference."""
    least = found["min"]
    return {
        place: row._replace(value=_difference(row.value, least[place].value))
        for place, row in found["max"].items()
        if place in least
    }


def _difference(most: Value, least: Value) -> Value:
    found: Value = most - least  # type: ignore[operator]
    return _as_stored(found)


def _by_place(rows: Iterator[Row]) -> Rows:
    return {place_of(row): row for row in rows}


def _chosen(rows: Rows, by: Iterator[Row]) -> Rows:
    """Those at the places of others."""
    places = {place_of(row) for row in by}
    return {place: row for place, row in rows.items() if place in places}


def _all_finite(rows: Rows) -> bool:
    return all(isfinite(row.value) for row in rows.values())  # type: ignore[arg-type]
