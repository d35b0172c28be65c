"""The statements by which points are read from PostgreSQL.

First the series are chosen, then their points are read by ranges of the primary key: what else
the bucket holds makes no difference to the time it takes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
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
    select,
    table,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from heartguard.models.timeseries import Aggregate

from .store import FieldType, Selection, StoredBucket

SCHEMA = "heartguard_core"

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
VALUES: Mapping[FieldType, ColumnElement[Any]] = {
    "float": points.c.value_float,
    "integer": points.c.value_int,
    "boolean": points.c.value_bool,
    "string": points.c.value_text,
}


class Chosen(NamedTuple):
    """A series that the selection means."""

    id: int
    field: str
    type: FieldType
    tags: dict[str, str]


def meant(bucket: StoredBucket, selection: Selection, limit: int) -> Select[Any]:
    """The series that are meant; a row without one where the bucket has none, no row where it is gone.

    By a function of the database's: to look for tags among all series is not the service's right.
    """
    fields = None if selection.fields is None else list(selection.fields)
    function = func.heartguard_core.choose_series(
        cast(int(bucket.id), BigInteger),
        selection.measurement,
        bindparam("fields", fields, ARRAY(Text)),
        bindparam("tags", dict(selection.tags) or None, JSONB(none_as_null=True)),
        cast(limit, BigInteger),
    )
    found = function.table_valued(
        column("id", BigInteger), column("field", Text), column("type", Text), column("tags", JSONB)
    )
    return select(found)


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


def _values_of(chosen: Sequence[Chosen]) -> list[Any]:
    """The columns in which the series have their values."""
    return [VALUES[type_] for type_ in sorted({one.type for one in chosen})]


def raw(bucket: StoredBucket, selection: Selection, chosen: Sequence[Chosen], share: int) -> Select[Any]:
    """At most ``share`` points are read of each series."""
    ranked = _ranked(chosen)
    values = _values_of(chosen)
    oldest = (
        select(points.c.ts, *values)
        .where(_in_range(bucket, selection), points.c.series_id == ranked.c.id)
        .order_by(points.c.ts)
        .limit(min(share, selection.limit))
        .lateral("oldest")
    )
    return (
        select(oldest.c.ts, ranked.c.rank, *(oldest.c[value.name] for value in values))
        .select_from(ranked.join(oldest, true()))
        .order_by(oldest.c.ts, ranked.c.rank)
        .limit(selection.limit)
    )


def windows(bucket: StoredBucket, selection: Selection, aggregate: Aggregate, chosen: Sequence[Chosen]) -> Select[Any]:
    numbered = _numbered(bucket, selection, chosen)
    ranked = _ranked(chosen)
    ends = aggregate in ("first", "last")
    # Apart from the rest, so that windows are put together by hashing: sorting all points first takes twice as long.
    rows = _ends(bucket, numbered, aggregate, chosen) if ends else _gathered(numbered, aggregate, chosen)
    gathered = rows.cte("gathered").prefix_with("MATERIALIZED")
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
    """One row per series and window: the result as a float or, where integers give one, as an integer.

    Where there are floats only, nothing else is asked for: those are in the index.
    """
    real, whole = numbered.c.value_float, numbered.c.value_int
    all_real = all(one.type == "float" for one in chosen)
    number = real if all_real else func.coalesce(real, cast(whole, Double))
    pairs: Mapping[str, tuple[ColumnElement[Any] | None, ColumnElement[Any] | None]] = {
        "mean": (func.avg(number), None),
        "median": (func.percentile_cont(0.5).within_group(number), None),
        "stddev": (func.stddev_samp(number), None),
        "count": (None, func.count()),
        "min": (func.min(real), func.min(whole)),
        "max": (func.max(real), func.max(whole)),
        "sum": (func.sum(real), func.sum(whole)),
        "spread": (func.max(real) - func.min(real), cast(func.max(whole), Numeric) - func.min(whole)),
    }
    as_float, as_integer = pairs[aggregate]
    wanted = [as_float] if all_real and as_float is not None else [as_float, as_integer]
    results = [result.label(f"result_{n}") for n, result in enumerate(wanted) if result is not None]
    rows = select(numbered.c.series_id, numbered.c.number, *results).group_by(numbered.c.series_id, numbered.c.number)
    if aggregate == "stddev":
        rows = rows.having(func.count() > 1)
    return rows


def _ends(bucket: StoredBucket, numbered: Subquery, aggregate: Aggregate, chosen: Sequence[Chosen]) -> Select[Any]:
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
    return select(ends.c.series_id, ends.c.number, *_values_of(chosen)).select_from(ends.join(points, same))
