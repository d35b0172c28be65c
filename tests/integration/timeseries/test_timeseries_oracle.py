"""Windows and aggregates compared with the same computed in plain Python from generated points."""

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.influx.src.store import ANY_TYPE, Selection, Series, StoredBucket

from .conftest import AnyStore, add

ORACLE: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    "mean": statistics.fmean,
    "median": statistics.median,
    "max": max,
    "min": min,
    "count": len,
    "sum": sum,
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
    "stddev": lambda values: statistics.stdev(values) if len(values) > 1 else None,
    "spread": lambda values: max(values) - min(values),
}
NOT_XML = [*map(chr, range(9)), *map(chr, range(11, 13)), *map(chr, range(14, 32)), "\ufffe", "\uffff"]
VALUES: Mapping[str, st.SearchStrategy[Any]] = {
    "real": st.floats(-1e6, 1e6).map(lambda value: round(value, 3)),
    "whole": st.integers(-(10**6), 10**6),
    "flag": st.booleans(),
    "word": st.text(st.characters(exclude_categories=["Cs"], exclude_characters=NOT_XML), max_size=3),
}
SERIES = [Series("m", ()), Series("m", (("a", "1"),)), Series("m", (("a", "1"), ("b", "2")))]

around_zero = st.integers(-200, 200)
points = st.lists(
    st.tuples(
        st.sampled_from(SERIES),
        around_zero,
        st.fixed_dictionaries({}, optional=dict(VALUES)).filter(bool),
    ),
    min_size=1,
    max_size=60,
)
ranges = st.tuples(st.integers(-250, 250), st.integers(1, 300)).map(lambda pair: (pair[0], pair[0] + pair[1]))

Found = tuple[int, str, tuple[tuple[str, str], ...], Any]


def expected(rows: Mapping[tuple[Series, str], Mapping[int, Any]], selection: Selection) -> list[Found]:
    """The answer by the letter of the contract."""
    found: list[Found] = []
    for (series, field), values in rows.items():
        if not selection.tags.items() <= dict(series.tags).items():
            continue
        if selection.fields is not None and field not in selection.fields:
            continue
        inside = sorted((time, value) for time, value in values.items() if selection.start <= time < selection.stop)
        if selection.aggregate is None:
            found += [(time, field, series.tags, value) for time, value in inside]
            continue
        for number, group in itertools.groupby(inside, key=lambda row: math.floor(row[0] / selection.window)):
            value = ORACLE[selection.aggregate]([value for _, value in group])
            if value is not None:
                found.append((min((number + 1) * selection.window, selection.stop), field, series.tags, value))
    return sorted(found, key=lambda row: row[:3])[: selection.limit]


def selections(data: st.DataObject) -> Selection:
    start, stop = data.draw(ranges, "range")
    aggregate = data.draw(st.sampled_from([None, *ORACLE]), "aggregate")
    numeric = aggregate is not None and aggregate not in ANY_TYPE
    some = st.lists(st.sampled_from(["real", "whole"] if numeric else list(VALUES)), min_size=1, unique=True)
    return Selection(
        measurement="m",
        start=start,
        stop=stop,
        fields=data.draw(some if numeric else st.none() | some, "fields"),
        tags=data.draw(st.sampled_from([{}, {"a": "1"}, {"b": "2"}, {"b": "1"}]), "tags"),
        aggregate=aggregate,  # type: ignore[arg-type]
        window=data.draw(st.sampled_from([1, 2, 7, 60, 100, 1000]), "window"),
        limit=data.draw(st.sampled_from([1, 5, 1000]), "limit"),
    )


def answers(store: AnyStore, bucket: StoredBucket, selection: Selection) -> list[Found]:
    return [(row.time, row.field, tuple(row.tags.items()), row.value) for row in store.select(bucket, selection)]


def assert_equal(found: Sequence[Found], wanted: Sequence[Found], selection: Selection) -> None:
    """Equal but for the last digits of what was computed with floats."""
    assert [row[:3] for row in found] == [row[:3] for row in wanted]
    for (*_, value), (*_, other) in zip(found, wanted, strict=True):
        if selection.aggregate in ("mean", "median", "stddev"):
            assert math.isclose(value, other, rel_tol=1e-9, abs_tol=1e-6)
        elif isinstance(other, float):
            assert math.isclose(value, other, rel_tol=1e-12, abs_tol=1e-9)
        else:
            assert (type(value), value) == (type(other), other)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_the_store_agrees_with_plain_python(store: AnyStore, new_org: Callable[[], int], data: st.DataObject) -> None:
    org = new_org()
    bucket = store.create_bucket(org, f"org_{org}", retention_seconds=0, description=None)
    assert bucket is not None
    rows: dict[tuple[Series, str], dict[int, Any]] = {}
    for _ in range(data.draw(st.integers(1, 3), "batches")):
        batch = store.batch(bucket)
        for series, time, fields in data.draw(points, "points"):
            add(batch, series, time, fields)
            for field, value in fields.items():
                rows.setdefault((series, field), {})[time] = value
        batch.write()
    for _ in range(6):
        selection = selections(data)
        assert_equal(answers(store, bucket, selection), expected(rows, selection), selection)
