"""Reading points from PostgreSQL.

First the series are chosen, then their points are read by ranges of the primary key: what else
the bucket holds makes no difference to the time it takes.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from math import isfinite
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Double,
    Numeric,
    Select,
    Subquery,
    Text,
    any_,
    bindparam,
    case,
    cast,
    column,
    func,
    null,
    select,
    table,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.exc import DataError

from heartguard.models.timeseries import Aggregate, FieldValue

from .errors import NotNumeric, Overflow
from .store import ANY_TYPE, NUMERIC, BucketGone, FieldType, Row, Selection, StoredBucket
from .times import window_stop

SCHEMA = "heartguard_core"
NUMERIC_VALUE_OUT_OF_RANGE = "22003"

buckets = table("buckets", column("id", BigInteger), column("org_id", BigInteger), schema=SCHEMA)
fields = table(
    "fields", column("bucket_id", BigInteger), column("measurement"), column("field"), column("type"), schema=SCHEMA
)
series = table(
    "series",
    column("id", BigInteger),
    column("bucket_id", BigInteger),
    column("measurement", Text),
    column("field", Text),
    column("tags", JSONB),
    schema=SCHEMA,
)
points = table(
    "points",
    column("bucket_id", BigInteger),
    column("series_id", BigInteger),
    column("ts", BigInteger),
    column("value_float", Double),
    column("value_int", BigInteger),
    column("value_bool", Boolean),
    column("value_text", Text),
    schema=SCHEMA,
)
VALUES = (points.c.value_float, points.c.value_int, points.c.value_bool, points.c.value_text)


class Chosen(NamedTuple):
    """A series that the selection means."""

    id: int
    field: str
    type: FieldType
    tags: dict[str, str]


def select_rows(connection: Connection, bucket: StoredBucket, selection: Selection) -> list[Row]:
    """See :meth:`.store.Store.select`."""
    chosen = choose(connection, bucket, selection)
    if selection.aggregate is None:
        return _read(connection, _raw(bucket, selection, chosen), chosen, lambda time: time)
    check_numeric(selection.aggregate, chosen)
    try:
        return _read(
            connection,
            _windows(bucket, selection, selection.aggregate, chosen),
            chosen,
            lambda number: window_stop(number, selection.window, selection.stop),
        )
    except (DataError, OverflowError) as error:
        if isinstance(error, DataError) and getattr(error.orig, "sqlstate", None) != NUMERIC_VALUE_OUT_OF_RANGE:
            raise
        raise Overflow(selection.aggregate) from None


def choose(connection: Connection, bucket: StoredBucket, selection: Selection) -> list[Chosen]:
    """The series that are meant, by field and then tags, which is the order of values of the same time.

    Raises :class:`BucketGone`: the outer join gives one row without a series where only those are missing.
    """
    wanted = (series.c.bucket_id == buckets.c.id) & (series.c.measurement == selection.measurement)
    if selection.fields is not None:
        wanted &= series.c.field == any_(bindparam("fields", list(selection.fields), ARRAY(Text)))
    if selection.tags:
        wanted &= series.c.tags.contains(dict(selection.tags))
    types = (
        (fields.c.bucket_id == series.c.bucket_id)
        & (fields.c.measurement == series.c.measurement)
        & (fields.c.field == series.c.field)
    )
    found = connection.execute(
        select(series.c.id, series.c.field, fields.c.type, series.c.tags)
        .select_from(buckets.outerjoin(series, wanted).outerjoin(fields, types))
        .where(buckets.c.id == int(bucket.id), buckets.c.org_id == bucket.org_id)
    ).all()
    if not found:
        raise BucketGone
    chosen = [Chosen(*row) for row in found if row.id is not None]
    return sorted(chosen, key=lambda one: (one.field, sorted(one.tags.items())))


def check_numeric(aggregate: Aggregate, chosen: Sequence[Chosen]) -> None:
    if aggregate not in ANY_TYPE and (other := {one.field for one in chosen if one.type not in NUMERIC}):
        raise NotNumeric(aggregate, sorted(other))


def _ids(chosen: Sequence[Chosen]) -> ColumnElement[Any]:
    return bindparam("series", [one.id for one in chosen], ARRAY(BigInteger))


def _ranked(chosen: Sequence[Chosen]) -> Any:
    """The chosen series as a table of ``id`` and ``rank``, which counts from 1."""
    return (
        func.unnest(_ids(chosen))
        .table_valued(column("id", BigInteger), with_ordinality="rank")
        .render_derived("chosen")
    )


def _in_range(bucket: StoredBucket, selection: Selection) -> ColumnElement[bool]:
    return (points.c.bucket_id == int(bucket.id)) & (points.c.ts >= selection.start) & (points.c.ts < selection.stop)


def _raw(bucket: StoredBucket, selection: Selection, chosen: Sequence[Chosen]) -> Select[Any]:
    """No series can contribute more than ``limit`` points, so no more are read of any."""
    ranked = _ranked(chosen)
    oldest = (
        select(points.c.ts, *VALUES)
        .where(_in_range(bucket, selection), points.c.series_id == ranked.c.id)
        .order_by(points.c.ts)
        .limit(selection.limit)
        .lateral("oldest")
    )
    values = [oldest.c[value.name] for value in VALUES]
    return (
        select(oldest.c.ts, ranked.c.rank, *values)
        .select_from(ranked.join(oldest, true()))
        .order_by(oldest.c.ts, ranked.c.rank)
        .limit(selection.limit)
    )


def _windows(bucket: StoredBucket, selection: Selection, aggregate: Aggregate, chosen: Sequence[Chosen]) -> Select[Any]:
    numbered = _numbered(bucket, selection, chosen)
    ranked = _ranked(chosen)
    ends = aggregate in ("first", "last")
    # Apart from the rest, so that windows are put together by hashing: sorting all points first takes twice as long.
    gathered = (_ends(bucket, numbered, aggregate) if ends else _gathered(numbered, aggregate, chosen)).cte("gathered")
    gathered = gathered.prefix_with("MATERIALIZED")
    values = [value for value in gathered.c if value.name not in ("series_id", "number")]
    return (
        select(gathered.c.number, ranked.c.rank, *values)
        .select_from(gathered.join(ranked, ranked.c.id == gathered.c.series_id))
        .order_by(gathered.c.number, ranked.c.rank)
        .limit(selection.limit)
    )


def _numbered(bucket: StoredBucket, selection: Selection, chosen: Sequence[Chosen]) -> Subquery:
    """The points with the ``number`` of their window since the epoch; integer division rounds towards zero."""
    window = bindparam("window", selection.window, BigInteger)
    number = points.c.ts // window
    if selection.start < 0:
        number -= case((points.c.ts % window < 0, 1), else_=0)
    return (
        select(points.c.series_id, number.label("number"), points.c.ts, points.c.value_float, points.c.value_int)
        .where(_in_range(bucket, selection), points.c.series_id == any_(_ids(chosen)))
        .subquery("numbered")
    )


def _gathered(numbered: Subquery, aggregate: Aggregate, chosen: Sequence[Chosen]) -> Select[Any]:
    """One row per series and window: the result as a float or, where integers give one, as an integer."""
    real, whole = numbered.c.value_float, numbered.c.value_int
    all_real = all(one.type == "float" for one in chosen)
    number = real if all_real else func.coalesce(real, cast(whole, Double))
    pairs: Mapping[str, tuple[ColumnElement[Any], ColumnElement[Any]]] = {
        "mean": (func.avg(number), null()),
        "median": (func.percentile_cont(0.5).within_group(number), null()),
        "stddev": (func.stddev_samp(number), null()),
        "count": (null(), func.count()),
        "min": (func.min(real), func.min(whole)),
        "max": (func.max(real), func.max(whole)),
        "sum": (func.sum(real), func.sum(whole)),
        "spread": (func.max(real) - func.min(real), cast(func.max(whole), Numeric) - func.min(whole)),
    }
    as_float, as_integer = pairs[aggregate]
    rows = select(
        numbered.c.series_id, numbered.c.number, as_float.label("as_float"), as_integer.label("as_integer")
    ).group_by(numbered.c.series_id, numbered.c.number)
    if aggregate == "stddev":
        rows = rows.having(func.count() > 1)
    return rows


def _ends(bucket: StoredBucket, numbered: Subquery, aggregate: Aggregate) -> Select[Any]:
    """The first or last point of each series and window, found again by its time."""
    end = func.min(numbered.c.ts) if aggregate == "first" else func.max(numbered.c.ts)
    ends = (
        select(numbered.c.series_id, numbered.c.number, end.label("ts"))
        .group_by(numbered.c.series_id, numbered.c.number)
        .subquery("ends")
    )
    same = (
        (points.c.bucket_id == int(bucket.id)) & (points.c.series_id == ends.c.series_id) & (points.c.ts == ends.c.ts)
    )
    return select(ends.c.series_id, ends.c.number, *VALUES).select_from(ends.join(points, same))


def _read(
    connection: Connection, statement: Select[Any], chosen: Sequence[Chosen], time_of: Callable[[int], int]
) -> list[Row]:
    if not chosen:
        return []
    rows: list[Row] = []
    for position, rank, *values in connection.execute(statement).all():
        one = chosen[rank - 1]
        value = values[0]
        if type(value) is not float or not isfinite(value):
            value = _value(values)
        rows.append(Row(time_of(position), one.field, value, one.tags))
    return rows


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
