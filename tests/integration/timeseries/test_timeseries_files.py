"""How many files InfluxDB has open: estimated from its shards, so that nobody finds out when it has none left."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.influx.src import influx_files
from services.influx.src.influx_client import InfluxClient
from services.influx.src.influx_files import OPEN, SHARDS, FileWatch

from .conftest import Caller, influx_only
from .influx import Influx

pytestmark = influx_only
DAY = 86_400


@pytest.fixture
def client(influx: Influx, monkeypatch: pytest.MonkeyPatch) -> Iterator[InfluxClient]:
    monkeypatch.setattr(influx_files, "FIRST_SECONDS", 0)
    client = InfluxClient(influx.address.url, influx.address.token, influx.address.org)
    yield client
    client.close()


def shards_now(client: InfluxClient) -> float:
    FileWatch(client, None).look()
    return float(SHARDS._value.get())


def test_shards_that_hold_points_are_counted(client: InfluxClient, admin: Caller, influx: Influx, org: int) -> None:
    before, opened = shards_now(client), OPEN._value.get()
    name = f"org_{org}_x"
    assert admin.create(name, retention_seconds=60 * DAY).status_code == 201
    assert admin.lines("m f=1", f"?bucket={name}").status_code == 200
    assert admin.lines(f"m f=1 {1_000_000_000}\nm f=1 {2_000_000_000}", "?precision=s").status_code in (200, 422)
    assert admin.lines(f"m f=1 {1_000_000_000}\nm f=1 {1_700_000_000}", "?precision=s").status_code == 200
    assert shards_now(client) == before + 3
    assert OPEN._value.get() == opened + 2 * influx_files.PER_BUCKET + 3 * influx_files.PER_SHARD
    influx.drop(influx.bucket(name)["id"])
    assert shards_now(client) == before + 2, "InfluxDB goes on naming the shards of a bucket that is gone"


def test_near_the_limit_it_is_said_and_no_bucket_is_made(
    client: InfluxClient, admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert admin.lines("m f=1").status_code == 200
    shards_now(client)
    logged: list[str] = []
    monkeypatch.setattr(influx_files.log, "error", lambda _, **said: logged.append(said["error"]))
    open_now = int(OPEN._value.get())
    for most, said, full in ((open_now * 2, False, False), (int(open_now / 0.85), True, False), (open_now, True, True)):
        watch = FileWatch(client, most)
        logged.clear()
        watch.look()
        assert logged == (["it will soon have no files left"] if said else [])
        assert watch.is_full is full


def test_the_estimate_is_what_a_server_has_open(client: InfluxClient, admin: Caller, influx: Influx) -> None:
    """Where it is ours, and so can be looked at."""
    process = _process(influx)
    if process is None:
        pytest.skip("this InfluxDB runs elsewhere")
    for year in range(1971, 2021):
        assert admin.lines(f"m f=1 {(year - 1970) * 365 * DAY}", "?precision=s").status_code == 200
    shards_now(client)
    estimate = OPEN._value.get()
    files = len(list(process.joinpath("fd").iterdir()))
    assert files == pytest.approx(estimate, rel=0.5)


def _process(influx: Influx) -> Path | None:
    port = influx.address.url.rpartition(":")[2]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"127.0.0.1:{port}".encode() in (process / "cmdline").read_bytes():
                return process
        except OSError:
            continue
    return None
