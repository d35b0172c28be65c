"""The same generated batches and queries to both stores and to InfluxDB 1.6, the storage engine of InfluxDB 2: equal
answers.

InfluxDB 1.6 is given the very lines that the service would send.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from services.influx.src.influx_answers import LOST
from services.influx.src.influx_batch import InfluxBatch
from services.influx.src.points import series_problems
from services.influx.src.store import Selection, Series, StoredBucket, TypeConflict
from services.influx.src.times import MAX_TIME, MIN_TIME

from . import fake_influx
from .conftest import AnyStore, Backend, add, new_store
from .references import Influx1, influx1
from .test_timeseries_oracle import Found, answers, assert_equal, points, selections

_numbers = itertools.count(7_000_000)
KINDS = {"real": float, "whole": int, "flag": bool, "word": str}


@pytest.fixture(scope="module")
def oracle(pytestconfig: pytest.Config, stores_folder: Path, free_port: Callable[[], int]) -> Iterator[Influx1]:
    assert pytestconfig.cache is not None
    folder = stores_folder / "influx1"
    folder.mkdir()
    with influx1(pytestconfig.cache.mkdir("influxd"), folder, (free_port(), free_port())) as oracle:
        yield oracle


@pytest.fixture(scope="module")
def stores(url_for: Callable[[str], str]) -> Iterator[tuple[AnyStore, AnyStore]]:
    """PostgreSQL and the small InfluxDB."""
    with fake_influx.serving() as (url, _):
        environ = {"INFLUX_URL": url, "INFLUX_TOKEN": fake_influx.TOKEN, "INFLUX_ORG": fake_influx.ORG}
        opened = [
            new_store(Backend("postgres", {"DATABASE_URL": url_for("timeseries")})),
            new_store(Backend("influx-fake", environ)),
        ]
        yield opened[0], opened[1]
        for store in opened:
            store.close()


def made(store: AnyStore, number: int) -> StoredBucket:
    bucket = store.create_bucket(number, f"org_{number}", retention_seconds=0, description=None)
    assert bucket is not None
    return bucket


def asked(oracle: Influx1, database: str, selection: Selection) -> list[Found]:
    """The selection in InfluxQL. It stamps windows with their start, and knows no limit over several series."""
    where = f"time >= {selection.start} AND time < {selection.stop}"
    where += "".join(f" AND \"{key}\" = '{value}'" for key, value in selection.tags.items())
    found: list[Found] = []
    for field in selection.fields or KINDS:
        column = f'"{field}"'
        by = "*"
        if selection.aggregate is not None:
            column = f"{selection.aggregate}({column})"
            by += f", time({selection.window}ns) fill(none)"
        question = f'SELECT {column} AS "value" FROM "m" WHERE {where} GROUP BY {by}'
        for series in oracle.query(question, database):
            tags = tuple(sorted((key, value) for key, value in series.get("tags", {}).items() if value))
            for time, value in series["values"]:
                if selection.aggregate is not None:
                    time = min((time // selection.window + 1) * selection.window, selection.stop)
                if value is not None:
                    found.append((time, field, tags, read(field, value, selection)))
    return sorted(found, key=lambda row: row[:3])[: selection.limit]


def read(field: str, value: Any, selection: Selection) -> Any:
    """JSON does not tell 1.0 from 1."""
    if isinstance(value, str):
        return value.replace(LOST, "\r")
    is_real = field == "real" and selection.aggregate != "count"
    return float(value) if is_real or selection.aggregate in ("mean", "median", "stddev") else value


@settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink against three servers takes minutes
)
@given(st.data())
def test_both_stores_answer_as_influxdb_does(
    stores: tuple[AnyStore, AnyStore], oracle: Influx1, data: st.DataObject
) -> None:
    number = next(_numbers)
    buckets = [made(store, number) for store in stores]
    oracle.create(f"org_{number}")
    for _ in range(data.draw(st.integers(1, 2), "batches")):
        batch = data.draw(points, "points")
        for store, bucket in zip(stores, buckets, strict=True):
            writing = store.batch(bucket)
            for series, time, fields in batch:
                add(writing, series, time, fields)
            if isinstance(writing, InfluxBatch):
                assert oracle.write(f"org_{number}", "".join(writing._lines()).encode()) == 204
            writing.write()
    for _ in range(5):
        selection = selections(data)
        first, second = (answers(store, bucket, selection) for store, bucket in zip(stores, buckets, strict=True))
        assert_equal(first, second, selection)
        assert_equal(asked(oracle, f"org_{number}", selection), second, selection)
    oracle.query(f'DROP DATABASE "org_{number}"')


names = st.text(st.sampled_from("ab ,=\"\\#'é💓${"), min_size=1, max_size=5)


@settings(max_examples=150, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(names, names, names, names, st.text(st.sampled_from('a ,="\\\n\r\té#')))
def test_names_and_strings_come_through_as_they_are(
    stores: tuple[AnyStore, AnyStore], oracle: Influx1, measurement: str, key: str, value: str, field: str, text: str
) -> None:
    """As far as the service lets them in."""
    assume(not any(series_problems(Series(measurement, ((key, value),)), [field])))
    number = next(_numbers)
    store = stores[1]
    bucket = made(store, number)
    writing = store.batch(bucket)
    assert isinstance(writing, InfluxBatch)
    add(writing, Series(measurement, ((key, value),)), 1, {field: text})
    lines = "".join(writing._lines()).encode()
    writing.write()
    wanted = [(1, field, ((key, value),), text)]
    everything = Selection(
        measurement=measurement, start=0, stop=2, fields=None, tags={}, aggregate=None, window=1, limit=9
    )
    assert answers(store, bucket, everything) == wanted
    oracle.create(f"org_{number}")
    assert oracle.write(f"org_{number}", lines) == 204
    (series,) = oracle.query("SELECT * FROM /.*/ GROUP BY *", f"org_{number}")
    assert (series["name"], series["tags"], series["columns"]) == (measurement, {key: value}, ["time", field])
    assert series["values"] == [[1, text.replace("\r", LOST)]]
    oracle.query(f'DROP DATABASE "org_{number}"')


CONFLICTS: Mapping[str, tuple[Any, Any]] = {
    "float and integer": (1.0, 1), "integer and float": (1, 1.0), "string and boolean": ("x", True),
}  # fmt: skip


@pytest.mark.parametrize(("first", "second"), CONFLICTS.values(), ids=CONFLICTS)
def test_a_conflict_of_types_here_is_one_there(
    stores: tuple[AnyStore, AnyStore], oracle: Influx1, first: Any, second: Any
) -> None:
    number = next(_numbers)
    oracle.create(f"org_{number}")
    for store in stores:
        bucket = made(store, number)
        for value, status in ((first, 204), (second, 400)):
            writing = store.batch(bucket)
            add(writing, Series("m", ()), 1, {"f": value})
            if isinstance(writing, InfluxBatch):
                assert oracle.write(f"org_{number}", "".join(writing._lines()).encode()) == status
            if status == 204:
                writing.write()
            else:
                with pytest.raises(TypeConflict):
                    writing.write()


@pytest.mark.parametrize("time", [MIN_TIME, -1, 0, 1, MAX_TIME])
@pytest.mark.parametrize("value", [5e-324, -0.0, 1.7976931348623157e308, 0.1, 1e21, -(2**63), 2**63 - 1])
def test_numbers_and_times_come_through_as_they_are(
    stores: tuple[AnyStore, AnyStore], oracle: Influx1, time: int, value: float
) -> None:
    number = next(_numbers)
    writing = stores[1].batch(made(stores[1], number))
    assert isinstance(writing, InfluxBatch)
    add(writing, Series("m", ()), time, {"f": value})
    oracle.create(f"org_{number}")
    assert oracle.write(f"org_{number}", "".join(writing._lines()).encode()) == 204
    (series,) = oracle.query("SELECT * FROM m", f"org_{number}")
    assert series["values"] == [[time, value]]
