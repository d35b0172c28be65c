"""The same generated batches and queries to both stores: equal answers, and in InfluxDB what the service meant.

What is in InfluxDB is read by InfluxDB's own client, past the service.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from influxdb_client import InfluxDBClient
from influxdb_client.client.flux_table import FluxRecord

from services.influx.src.influx_answers import LOST
from services.influx.src.influx_batch import InfluxBatch
from services.influx.src.points import series_problems
from services.influx.src.store import Selection, Series, StoredBucket, TypeConflict
from services.influx.src.times import MAX_TIME, MIN_TIME, format_time

from .conftest import AnyStore, Backend, add, new_store
from .influx import Influx
from .test_timeseries_oracle import answers, assert_equal, points, selections

QUICK = (Phase.explicit, Phase.reuse, Phase.generate)
"""To shrink against two servers takes minutes."""


@pytest.fixture(scope="module")
def stores(url_for: Callable[[str], str], influx: Influx) -> Iterator[tuple[AnyStore, AnyStore]]:
    """PostgreSQL and InfluxDB."""
    opened = [
        new_store(Backend("postgres", {"DATABASE_URL": url_for("timeseries")})),
        new_store(Backend(influx.kind, influx.environ())),
    ]
    yield opened[0], opened[1]
    for store in opened:
        store.close()


@pytest.fixture(scope="module")
def client(influx: Influx) -> Iterator[InfluxDBClient]:
    address = influx.address
    with InfluxDBClient(address.url, address.token, org=address.org) as client:
        yield client


def made(store: AnyStore, org: int) -> StoredBucket:
    bucket = store.create_bucket(org, f"org_{org}", retention_seconds=0, description=None)
    assert bucket is not None
    return bucket


def read(client: InfluxDBClient, bucket: StoredBucket) -> list[FluxRecord]:
    """All points that are in InfluxDB."""
    query = "from(bucket: name) |> range(start: begin, stop: end)"
    params = {"name": bucket.name, "begin": datetime(1678, 1, 1, tzinfo=UTC), "end": datetime(2262, 1, 1, tzinfo=UTC)}
    return [record for table in client.query_api().query(query, params=params) for record in table.records]


@settings(max_examples=40, deadline=None, phases=QUICK)
@given(st.data())
def test_both_stores_give_the_same_answers(
    stores: tuple[AnyStore, AnyStore], new_org: Callable[[], int], data: st.DataObject
) -> None:
    org = new_org()
    buckets = [made(store, org) for store in stores]
    for _ in range(data.draw(st.integers(1, 2), "batches")):
        batch = data.draw(points, "points")
        for store, bucket in zip(stores, buckets, strict=True):
            writing = store.batch(bucket)
            for series, time, fields in batch:
                add(writing, series, time, fields)
            writing.write()
    for _ in range(5):
        selection = selections(data)
        first, second = (answers(store, bucket, selection) for store, bucket in zip(stores, buckets, strict=True))
        assert_equal(first, second, selection)


names = st.text(st.sampled_from("ab ,=\"\\#'é💓${"), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None, phases=QUICK)
@given(names, names, names, names, st.text(st.sampled_from('a ,="\\\n\r\té#')))
def test_names_and_strings_come_through_as_they_are(
    stores: tuple[AnyStore, AnyStore],
    client: InfluxDBClient,
    new_org: Callable[[], int],
    measurement: str,
    key: str,
    value: str,
    field: str,
    text: str,
) -> None:
    """As far as the service lets them in."""
    assume(not any(series_problems(Series(measurement, ((key, value),)), [field])))
    store = stores[1]
    bucket = made(store, new_org())
    writing = store.batch(bucket)
    add(writing, Series(measurement, ((key, value),)), 1, {field: text})
    writing.write()
    everything = Selection(
        measurement=measurement, start=0, stop=2, fields=None, tags={}, aggregate=None, window=1, limit=9
    )
    assert answers(store, bucket, everything) == [(1, field, ((key, value),), text)]
    (record,) = read(client, bucket)
    stored = text.replace("\r", LOST).replace("\n", "\r\n")  # CSV has its line breaks as it likes
    found = (record.get_measurement(), record.get_field(), record.get_value() or "")  # the client makes None of ""
    assert found == (measurement, field, stored)
    assert record.values[key] == value


CONFLICTS: Mapping[str, tuple[Any, Any, str]] = {
    "float and integer": (1.0, 1, "m f=1i 1"),
    "integer and float": (1, 1.0, "m f=1 1"),
    "string and boolean": ("x", True, "m f=t 1"),
}  # fmt: skip


@pytest.mark.parametrize(("first", "second", "line"), CONFLICTS.values(), ids=CONFLICTS)
def test_a_conflict_of_types_here_is_one_there(
    stores: tuple[AnyStore, AnyStore], influx: Influx, org: int, first: Any, second: Any, line: str
) -> None:
    for store in stores:
        bucket = made(store, org)
        writing = store.batch(bucket)
        add(writing, Series("m", ()), 1, {"f": first})
        writing.write()
        writing = store.batch(bucket)
        add(writing, Series("m", ()), 1, {"f": second})
        with pytest.raises(TypeConflict):
            writing.write()
    answer = influx.call("POST", "/write", line.encode(), org=influx.address.org, bucket=f"org_{org}")
    assert answer.status == 422
    assert "field type conflict" in answer.json["message"]


@pytest.mark.parametrize("time", [MIN_TIME, -1, 0, 1, MAX_TIME])
def test_numbers_and_times_come_through_as_they_are(
    stores: tuple[AnyStore, AnyStore], influx: Influx, org: int, time: int
) -> None:
    values = {
        f"f{number}": value
        for number, value in enumerate((5e-324, -0.0, 1.7976931348623157e308, 0.1, 1e21, -(2**63), 2**63 - 1))
    }
    bucket = made(stores[1], org)
    writing = stores[1].batch(bucket)
    assert isinstance(writing, InfluxBatch)
    add(writing, Series("m", ()), time, values)
    writing.write()
    bounds = f"start: {format_time(MIN_TIME)}, stop: {format_time(MAX_TIME + 1)}"
    query = f'from(bucket: "{bucket.name}") |> range({bounds}) |> keep(columns: ["_time", "_field", "_value"])'
    rows = [line.split(",")[3:] for line in influx.query(query).splitlines() if ",f" in line]
    found = {field: (at, type(values[field])(value)) for at, value, field in rows}
    assert found == {field: (format_time(time), value) for field, value in values.items()}
    everything = Selection(
        measurement="m", start=MIN_TIME, stop=MAX_TIME + 1, fields=None, tags={}, aggregate=None, window=1, limit=9
    )
    assert answers(stores[1], bucket, everything) == [(time, field, (), value) for field, value in values.items()]
