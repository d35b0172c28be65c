"""Reading points from PostgreSQL, part by part, until there is as much as was asked for."""

import time
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from heapq import nsmallest
from itertools import chain
from math import isfinite
from typing import Any

from sqlalchemy import Connection, Select, text
from sqlalchemy.exc import DBAPIError

from heartguard.models.timeseries import Aggregate, FieldValue

from . import db_select
from .db_select import Chosen
from .errors import NotNumeric, Overflow, TooManySeries, TooMuch
from .store import ANY_TYPE, NUMERIC, BucketGone, Row, Selection, StoredBucket, place_of
from .times import window_stop

NUMERIC_VALUE_OUT_OF_RANGE = "22003"
QUERY_CANCELED = "57014"

MAX_SERIES = 50_000
"""What one question may mean: they have to be put in order. Of more, for who is patient, so many are read at a time."""
ANY_NUMBER = 2**62
SECONDS = 8.0
"""For a statement, and until the last one is begun: together less than the gateway waits."""
SHARE = 16
"""Points of a series to begin with, where there are many."""
GROWTH = 4

_TIMEOUT = text("SELECT set_config('statement_timeout', :milliseconds, true)")


def select_rows(connection: Connection, bucket: StoredBucket, selection: Selection) -> list[Row]:
    """See :meth:`.store.Store.select`."""
    chosen = choose(connection, bucket, selection)
    if not chosen:
        return []
    try:
        connection.execute(_TIMEOUT, {"milliseconds": str(int(SECONDS * 1000))})
        groups = [chosen[begin : begin + MAX_SERIES] for begin in range(0, len(chosen), MAX_SERIES)]
        found = [_rows(Parts(connection, bucket, selection, group), selection.aggregate) for group in groups]
        return found[0] if len(found) == 1 else nsmallest(selection.limit, chain(*found), key=place_of)
    except (DBAPIError, OverflowError) as error:
        state = getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else NUMERIC_VALUE_OUT_OF_RANGE
        if state == NUMERIC_VALUE_OUT_OF_RANGE and selection.aggregate:
            raise Overflow(selection.aggregate) from None
        if state == QUERY_CANCELED:
            raise TooMuch from None
        raise


def _rows(parts: "Parts", aggregate: Aggregate | None) -> list[Row]:
    return parts.raw() if aggregate is None else parts.windows(aggregate)


class Parts:
    """Answers a question part by part, each later in time, until there is enough of it.

    So a question about years costs no more than its answer needs. Where a part gave too little, because there are
    few points, the next one is larger.
    """

    def __init__(
        self, connection: Connection, bucket: StoredBucket, selection: Selection, chosen: Sequence[Chosen]
    ) -> None:
        self._connection = connection
        self._bucket = bucket
        self._selection = selection
        self._chosen = chosen
        self._rows: list[Row] = []
        self._end = time.monotonic() + SECONDS

    def windows(self, aggregate: Aggregate) -> list[Row]:
        check_numeric(aggregate, self._chosen)
        window, stop = self._selection.window, self._selection.stop
        begin: int | None = self._selection.start
        span = -(-self._selection.limit // len(self._chosen))
        while begin is not None:
            end = min((begin // window + span) * window, stop)
            part = replace(self._selection, start=begin, stop=end, limit=self._missing)
            for number, rank, *values in self._found(db_select.windows(self._bucket, part, aggregate, self._chosen)):
                self._add(window_stop(number, window, stop), rank, values)
            begin = self._next(end) if self._missing and end < stop else None
            span *= GROWTH
        return self._rows

    def raw(self) -> list[Row]:
        """No series can contribute more than its share, or what is missing, to a part.

        So the part is whole up to the point where the first series has used up its share.
        """
        share = max(SHARE, GROWTH * -(-self._selection.limit // len(self._chosen)))
        begin: int | None = self._selection.start
        while begin is not None:
            part = replace(self._selection, start=begin, limit=self._missing)
            counts = [0] * (len(self._chosen) + 1)
            begin = None
            for ts, rank, *values in self._found(db_select.raw(self._bucket, part, self._chosen, share)):
                if begin is not None and ts >= begin:
                    break
                self._add(ts, rank, values)
                counts[rank] += 1
                if counts[rank] == share and begin is None:
                    begin = ts + 1
            share *= GROWTH
            if not self._missing or begin == self._selection.stop:
                break
        return self._rows

    @property
    def _missing(self) -> int:
        return self._selection.limit - len(self._rows)

    def _found(self, statement: Select[Any]) -> Sequence[Any]:
        if time.monotonic() > self._end:
            raise TooMuch
        return self._connection.execute(statement).all()

    def _next(self, begin: int) -> int | None:
        """The time of the next point from there on."""
        part = replace(self._selection, start=begin, limit=1)
        return next((row.ts for row in self._found(db_select.raw(self._bucket, part, self._chosen, 1))), None)

    def _add(self, time: int, rank: int, values: Sequence[Any]) -> None:
        one = self._chosen[rank - 1]
        value = values[0]
        if type(value) is not float or not isfinite(value):
            value = _value(values)
        self._rows.append(Row(time, one.field, value, one.tags))


def choose(connection: Connection, bucket: StoredBucket, selection: Selection) -> list[Chosen]:
    """The series that are meant, by field and then tags, which is the order of values of the same time."""
    most = ANY_NUMBER if selection.patient else MAX_SERIES
    found = connection.execute(db_select.meant(bucket, selection, most + 1)).all()
    if not found:
        raise BucketGone
    if len(found) > most:
        raise TooManySeries(most)
    chosen = [Chosen(*row) for row in found if row.id is not None]
    return sorted(chosen, key=lambda one: (one.field, sorted(one.tags.items())))


def check_numeric(aggregate: Aggregate, chosen: Sequence[Chosen]) -> None:
    if aggregate not in ANY_TYPE and (other := {one.field for one in chosen if one.type not in NUMERIC}):
        raise NotNumeric(aggregate, sorted(other))


def _value(values: Sequence[Any]) -> FieldValue | int:
    """The one that is there. An integer too large for 64 bits becomes a float; OverflowError: a float too large."""
    for value in values:
        if type(value) is float:
            if not isfinite(value):
                raise OverflowError
            return value
        if value is not None:
            break
    if isinstance(value, Decimal):
        return int(value) if -(2**63) <= value < 2**63 else float(value)
    found: FieldValue | int = value
    return found
