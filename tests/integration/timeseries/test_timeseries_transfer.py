"""Points move from one store to the other, whole, and go on where they were broken off."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heartguard.cli.main import app
from heartguard.settings import SettingsError
from services.influx.src import db_read, influx_answers, influx_read
from services.influx.src import transfer as transfers
from services.influx.src.errors import TooManySeries
from services.influx.src.store import Series
from services.influx.src.times import MAX_TIME, MIN_TIME, SECOND
from services.influx.src.transfer import AnyStore, Transfer, TransferError, everything

from . import faults
from .conftest import STORES, Backend, add, new_store
from .faults import Proxy
from .http_server import Request
from .influx import Influx

Pair = dict[str, AnyStore]


@pytest.fixture
def pair(url_for: Callable[[str], str], influx: Influx, proxy: Proxy) -> Iterator[Pair]:
    stores = {
        "postgres": new_store(Backend("postgres", {"DATABASE_URL": url_for("timeseries")})),
        "influx": new_store(Backend(influx.kind, influx.environ(INFLUX_URL=proxy.url))),
    }
    yield stores
    for store in stores.values():
        store.close()


def fill(store: AnyStore, org: int) -> str:
    """A bucket with all types, several measurements and the first and last times; its name."""
    name = f"org_{org}_moved"
    bucket = store.create_bucket(org, name, retention_seconds=0, description="Ward 3")
    assert bucket is not None
    batch = store.batch(bucket)
    for n in range(40):
        for series in (Series("m", (("a", "1"),)), Series("m", (("a", "2"), ("b", "é, ="))), Series("m n", ())):
            add(batch, series, n // 2, {"f": n / 3, "i": 2**62 + n, "b": n % 2 == 0, "s": f'"{n}"\r\n\\'})
    add(batch, Series("m", ()), MIN_TIME, {"f": 1.0})
    add(batch, Series("m", ()), MAX_TIME, {"f": 2.0})
    batch.write()
    return name


def content(store: AnyStore, org: int, name: str) -> list[object]:
    bucket = store.bucket(org, name)
    assert bucket is not None
    return [bucket.description, bucket.retention_seconds] + [
        (measurement, row)
        for measurement in store.measurements(bucket)
        for row in store.select(bucket, everything(measurement, bucket))
    ]


@pytest.mark.parametrize(("source", "target"), [("postgres", "influx"), ("influx", "postgres")])
@pytest.mark.parametrize("at_once", [1, 7, 20_000])
def test_everything_comes_over(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, org: int, source: str, target: str, at_once: int
) -> None:
    monkeypatch.setattr(transfers, "AT_ONCE", at_once)
    name = fill(pair[source], org)
    moving = Transfer(pair[source], pair[target], tmp_path / "position.json", name)
    told: list[int] = []
    moving.run(told.append)
    assert sum(told) == moving.total() == 3 * 20 * 4 + 2
    assert content(pair[target], org, name) == content(pair[source], org, name)
    assert moving.differences() == []
    moving.run(told.append)
    assert sum(told) == moving.total(), "nothing is left to be copied"


@pytest.mark.parametrize(("source", "target"), [("postgres", "influx"), ("influx", "postgres")])
def test_more_series_than_a_request_may_mean_come_over(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, org: int, source: str, target: str
) -> None:
    monkeypatch.setattr(db_read, "MAX_SERIES", 3)
    monkeypatch.setattr(influx_answers, "MAX_SERIES", 3)
    monkeypatch.setattr(transfers, "AT_ONCE", 50)
    name = fill(pair[source], org)
    bucket = pair[source].bucket(org, name)
    assert bucket is not None
    with pytest.raises(TooManySeries):
        pair[source].select(bucket, replace(everything("m", bucket), patient=False))
    moving = Transfer(pair[source], pair[target], tmp_path / "position.json", name)
    told: list[int] = []
    moving.run(told.append)
    assert sum(told) == moving.total() == 3 * 20 * 4 + 2
    assert moving.differences() == []
    assert content(pair[target], org, name) == content(pair[source], org, name)


@pytest.mark.parametrize(("source", "target"), [("postgres", "influx"), ("influx", "postgres")])
def test_several_series_after_1970_come_over(pair: Pair, tmp_path: Path, org: int, source: str, target: str) -> None:
    """The whole range is longer than InfluxDB's 64 bits of nanoseconds can hold."""
    bucket = pair[source].create_bucket(org, f"org_{org}", retention_seconds=0, description=None)
    assert bucket is not None
    batch = pair[source].batch(bucket)
    for user in range(5):
        add(batch, Series("m", (("user_id", str(user)),)), 1_717_236_000 * SECOND + user, {"f": float(user)})
    batch.write()
    moving = Transfer(pair[source], pair[target], tmp_path / "position.json", bucket.name)
    moving.run(lambda _: None)
    assert content(pair[target], org, bucket.name) == content(pair[source], org, bucket.name)
    assert len(content(pair[target], org, bucket.name)) == 2 + 5


YEAR = 365 * 86_400 * SECOND


def too_much(request: Request) -> tuple[int, str, str] | None:
    """InfluxDB has not enough memory for the points of more than a century."""
    asked = json.loads(request.content)
    values = {one["assignment"]["id"]["name"]: one["assignment"]["init"] for one in asked["extern"]["body"]}
    start, stop = (int(values[name]["value"][:4]) for name in ("start", "stop"))
    if stop - start <= 100 or "filter" not in asked["query"] or "first" in asked["query"]:
        return None
    return 400, "invalid", "memory allocation limit reached: limit 1 bytes, allocated: 0, wanted: 8"


@pytest.mark.parametrize(("source", "target"), [("postgres", "influx"), ("influx", "postgres")])
def test_what_is_too_much_at_once_is_gone_through_by_shorter_ranges(
    pair: Pair, tmp_path: Path, proxy: Proxy, org: int, source: str, target: str
) -> None:
    bucket = pair[source].create_bucket(org, f"org_{org}_slow", retention_seconds=0, description=None)
    assert bucket is not None
    batch = pair[source].batch(bucket)
    for n in range(50):
        for series in (Series("m", (("a", "1"),)), Series("m", (("a", "2"),))):
            add(batch, series, n * 5 * YEAR, {"f": float(n)})
    batch.write()
    moving = Transfer(pair[source], pair[target], tmp_path / "position.json", bucket.name)
    told: list[int] = []
    with proxy.fault("POST", "/query", faults.refused_where(too_much)):
        assert moving.total() == (None if source == "influx" else 100)
        moving.run(told.append)
        assert moving.differences() == []
    assert sum(told) == 100
    assert content(pair[target], org, bucket.name) == content(pair[source], org, bucket.name)


def test_a_part_is_as_large_as_it_should_be_of_many_series_too(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, org: int
) -> None:
    """InfluxDB limits the values of each series, not of all."""
    monkeypatch.setattr(transfers, "AT_ONCE", 30)
    name = fill(pair["influx"], org)
    read: list[int] = []
    monkeypatch.setattr(influx_read, "read", lambda lines, **options: counted(lines, read, **options))
    Transfer(pair["influx"], pair["postgres"], tmp_path / "position.json", name).run(lambda _: None)
    assert max(read) <= 31


def counted(lines: Iterable[str], counts: list[int], **options: bool) -> Iterator[influx_answers.Found]:
    counts.append(0)
    for found in influx_answers.read(lines, **options):
        counts[-1] += 1
        yield found


def test_it_goes_on_where_it_was_broken_off(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, org: int
) -> None:
    monkeypatch.setattr(transfers, "AT_ONCE", 30)
    name = fill(pair["postgres"], org)
    file = tmp_path / "position.json"

    class Stopped(Exception):
        pass

    told: list[int] = []

    def break_off(count: int) -> None:
        told.append(count)
        if len(told) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        Transfer(pair["postgres"], pair["influx"], file, name).run(break_off)
    moving = Transfer(pair["postgres"], pair["influx"], file, name)
    assert [found.bucket for found in moving.differences()] == [name] * 2
    moving.run(told.append)
    assert sum(told) == moving.total(), "no part came over twice"
    assert content(pair["influx"], org, name) == content(pair["postgres"], org, name)


def test_points_that_came_later_come_over_too(pair: Pair, tmp_path: Path, org: int) -> None:
    bucket = pair["postgres"].create_bucket(org, f"org_{org}", retention_seconds=3600, description=None)
    assert bucket is not None
    moving = Transfer(pair["postgres"], pair["influx"], tmp_path / "position.json", bucket.name)
    told: list[int] = []
    for n in range(2):
        batch = pair["postgres"].batch(bucket)
        add(batch, Series("m", ()), time.time_ns(), {"f": float(n)})
        batch.write()
        moving.run(told.append)
    assert told == [1, 1]
    assert moving.differences() == []


def test_the_command_s_options(tmp_path: Path) -> None:
    run = CliRunner().invoke
    assert run(app, ["timeseries", "copy", "--from", "postgres", "--to", "csv"]).exit_code == 2
    with pytest.raises(SettingsError, match="same store"):
        transfers.stores("influx", "influx", {})
    with pytest.raises(SettingsError, match="INFLUX_TOKEN, INFLUX_ORG, DATABASE_URL"):
        transfers.stores("influx", "postgres", {"INFLUX_URL": "http://127.0.0.1:1"})


def test_a_store_that_is_away(pair: Pair, tmp_path: Path, org: int) -> None:
    environ = {"INFLUX_URL": "http://127.0.0.1:1", "INFLUX_TOKEN": "t", "INFLUX_ORG": "o"}
    away = new_store(Backend("influx", environ))
    fill(pair["postgres"], org)
    with pytest.raises(TransferError, match=f"org_{org}_moved: The service is unavailable"):
        Transfer(pair["postgres"], away, tmp_path / "position.json", f"org_{org}_moved").run(lambda _: None)
    away.close()


@pytest.mark.parametrize(("source", "target"), [("postgres", "influx"), ("influx", "postgres")])
def test_what_stands_in_the_way_is_named(pair: Pair, tmp_path: Path, org: int, source: str, target: str) -> None:
    name = fill(pair[source], org)
    made = pair[target].create_bucket(org, name, retention_seconds=0, description=None)
    assert made is not None
    batch = pair[target].batch(made)
    add(batch, Series("m n", ()), 0, {"f": "text"})
    batch.write()
    with pytest.raises(TransferError, match=f"{name} m n: a field has one type there and another here"):
        Transfer(pair[source], pair[target], tmp_path / "position.json", name).run(lambda _: None)


def test_the_command_names_what_stands_in_the_way(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    influx: Influx,
    proxy: Proxy,
    url_for: Callable[[str], str],
    pair: Pair,
    org: int,
) -> None:
    name = fill(pair["postgres"], org)
    environ = {
        **STORES,
        **influx.environ(INFLUX_URL=proxy.url),
        "DATABASE_URL": url_for("timeseries"),
        "HEARTGUARD_DATA": str(tmp_path),
    }
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    command = ["timeseries", "copy", "--from", "postgres", "--to", "influx", "--bucket", name]
    proxy.set("POST", "/write", faults.refused(400, "invalid"))
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, result.exception.__class__) == (1, SystemExit), result.output
    assert f"{name} m: The service is unavailable" in " ".join(result.output.split())
