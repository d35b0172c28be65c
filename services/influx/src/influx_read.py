"""Reading points from InfluxDB."""

import heapq
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from math import isfinite
from typing import NamedTuple

from heartguard.models.timeseries import Aggregate

from . import influx_flux as flux
from .errors import Overflow, TooMuch
from .influx_answers import Found, Value, read
from .influx_client import InfluxClient
from .store import Place, Row, Selection, place_of
from .times import window_stop

FIRST, LAST = -(2**63), 2**63 - 1
MAX_INT = 2**63 - 1

Rows = dict[Place, Row]


class Piece(NamedTuple):
    """A part of a range; ``stop`` is the time of its only window, None where it has several."""

    selection: Selection
    stop: int | None


def select_rows(client: InfluxClient, bucket: str, selection: Selection, integers: Collection[str] = ()) -> list[Row]:
    """See :meth:`.store.Store.select`. ``integers`` are those of the chosen fields whose values are."""
    return heapq.nsmallest(selection.limit, _rows(client, bucket, selection, integers), key=place_of)


def _rows(client: InfluxClient, bucket: str, selection: Selection, integers: Collection[str]) -> Iterator[Row]:
    aggregate = selection.aggregate
    if aggregate is None:
        rows = read(client.query(flux.RAW, flux.extern(bucket, selection)), patient=selection.patient)
        for number, found in enumerate(rows):
            if selection.patient and number == selection.limit:
                raise TooMuch  # each series gives as many as that, and they come one series after another
            yield Row(found.time, found.field, found.value, found.tags)
        return
    for piece in pieces(selection):
        yield from _Aggregation(client, bucket, piece, integers).rows(aggregate)


def pieces(selection: Selection) -> Iterator[Piece]:
    """The range in parts whose windows InfluxDB can count with: it does so in 64 bits, without a look at overflows.

    Windows that begin or end beyond these, or next to them, are asked for one by one.
    """
    window = selection.window
    first, last = selection.start // window, (selection.stop - 1) // window
    within = range(max(first, FIRST // window + 2), min(last, LAST // window - 2) + 1)
    if first == last or not within:
        within = range(first, first)
    for number in range(first, within.start if within else last + 1):
        yield _single(selection, number)
    if within:
        start = max(selection.start, within.start * window)
        yield Piece(replace(selection, start=start, stop=min(selection.stop, within.stop * window)), None)
        for number in range(within.stop, last + 1):
            yield _single(selection, number)


def _single(selection: Selection, number: int) -> Piece:
    stop = window_stop(number, selection.window, selection.stop)
    start = max(selection.start, number * selection.window)
    return Piece(replace(selection, start=start, stop=stop), stop)


class _Aggregation:
    """The windows of a piece. ``integers`` are those fields whose values are."""

    def __init__(self, client: InfluxClient, bucket: str, piece: Piece, integers: Collection[str]) -> None:
        self._client = client
        self._bucket = bucket
        self._piece = piece
        self._integers = integers
        self._query: Callable[..., str] = flux.windows if piece.stop is None else flux.whole

    def rows(self, aggregate: Aggregate) -> Sequence[Row]:
        if aggregate == "spread":
            rows = self._spread()
        else:
            # Of deviations some windows are left out afterwards, so that the limit comes later.
            found = self._ask(aggregate, limited=aggregate != "stddev")
            rows = {place_of(row): row for row in map(self._row, found)}
            if aggregate in ("sum", "mean") and self._integers:
                self._mend_wrapped(aggregate, rows)
            elif aggregate == "stddev":
                rows = self._of_several(rows)
        if not all(isfinite(row.value) for row in rows.values() if isinstance(row.value, float)):
            raise Overflow(aggregate)
        return list(rows.values())

    def _spread(self) -> Rows:
        """The storage engine knows the least and the greatest value, but not their difference."""
        found = self._by_result("min", "max")
        least = found["min"]
        return {
            place: row._replace(value=_difference(row.value, least[place].value))
            for place, row in found["max"].items()
            if place in least
        }

    def _mend_wrapped(self, aggregate: Aggregate, rows: Rows) -> None:
        """Do what is wrong again with floats: InfluxDB sums integers up in 64 bits, for their mean too."""
        bounds = self._by_result("min", "max", "count", fields=self._integers)
        largest: dict[Place, int] = {}
        for place, row in [*bounds["min"].items(), *bounds["max"].items()]:
            largest[place] = max(largest.get(place, 0), abs(int(row.value)))
        risky = {place for place, row in bounds["count"].items() if largest.get(place, 0) * int(row.value) > MAX_INT}
        if risky:
            for found in self._ask(aggregate, fields=self._integers, convert=flux.TO_FLOAT):
                row = self._row(found)
                if place_of(row) in risky and (aggregate == "mean" or abs(found.value) >= MAX_INT):  # type: ignore[arg-type]
                    rows[place_of(row)] = row

    def _of_several(self, rows: Rows) -> Rows:
        """A single point has no deviation. Of several, which are very large, it may be no number all the same."""
        if all(isfinite(row.value) for row in rows.values()):  # type: ignore[arg-type]
            return rows
        several = {place_of(self._row(found)) for found in self._ask("count", limited=False) if found.value > 1}  # type: ignore[operator]
        return {place: row for place, row in rows.items() if place in several}

    def _by_result(self, *functions: str, fields: Collection[str] | None = None) -> dict[str, Rows]:
        """What each function gives. InfluxDB answers in whatever order it has them."""
        results: dict[str, Rows] = {function: {} for function in functions}
        for found in self._ask(*functions, fields=fields):
            row = self._row(found)
            results[found.result][place_of(row)] = row
        return results

    def _ask(
        self, *functions: str, fields: Collection[str] | None = None, convert: str = "", limited: bool = True
    ) -> Iterator[Found]:
        selection = self._piece.selection
        if fields is not None:
            selection = replace(selection, fields=fields)
        query = self._query(*functions, convert=convert, limited=limited)
        return read(self._client.query(query, flux.extern(self._bucket, selection)), patient=selection.patient)

    def _row(self, found: Found) -> Row:
        time = found.time if self._piece.stop is None else self._piece.stop
        return Row(time, found.field, found.value, found.tags)


def _difference(most: Value, least: Value) -> Value:
    found = most - least  # type: ignore[operator]
    return float(found) if abs(found) > MAX_INT else found
