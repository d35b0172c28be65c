"""How many shards a bucket of InfluxDB can have: each costs it files for as long as it runs."""

import time

import pytest
from flask import Flask

from heartguard.timestamps import SECOND, parse_time
from services.influx.src.influx_shards import HOUR, YEAR, shard_seconds
from services.influx.src.influx_store import InfluxStore
from services.influx.src.times import TimeBounds

from .conftest import Backend, Caller, influx_only, running
from .influx import Influx

DAY = 24 * HOUR
NOW = parse_time("2026-11-24T12:00:00Z")
DEFAULT = TimeBounds(earliest=0, ahead=DAY * SECOND)


@pytest.mark.parametrize(
    ("retention", "hours"), [(0, 8760), (3600, 1), (2 * DAY, 2), (30 * DAY, 13), (365 * DAY, 147), (10**9, 4631)]
)
def test_a_shard_s_time_follows_from_the_retention(retention: int, hours: int) -> None:
    assert shard_seconds(retention, DEFAULT, NOW) == hours * HOUR


@pytest.mark.parametrize("earliest", ["1678-01-01", "1970-01-01", "2020-01-01", "2026-11-01"])
@pytest.mark.parametrize("ahead", [0, 3600, DAY, 7 * DAY])
@pytest.mark.parametrize("retention", [0, 3600, 7200, DAY, 7 * DAY, 365 * DAY, 50 * YEAR, 100 * YEAR])
def test_so_many_fit_within_the_bounds_and_no_more(earliest: str, ahead: int, retention: int) -> None:
    bounds = TimeBounds(earliest=parse_time(f"{earliest}T00:00:00Z"), ahead=ahead * SECOND)
    seconds = shard_seconds(retention, bounds, NOW)
    past = (NOW - bounds.earliest) // SECOND
    span = (min(retention, past) if retention else past) + ahead
    assert seconds % HOUR == 0
    assert not retention or seconds <= retention
    assert span / seconds <= max(60, (retention + ahead) / HOUR if 0 < retention < 60 * HOUR else 0)


@influx_only
def test_points_all_over_time_make_few_shards(backend: Backend, influx: Influx, org: int) -> None:
    """One point in every week: 2,966 shards where each is for a week."""
    with running({**backend.environ, "TIMESERIES_EARLIEST": "1970-01-01"}) as app:
        caller = Caller(app, org, "user", 7)
        weeks = range(0, int(time.time()), 7 * DAY)
        lines = "\n".join(f"m,user_id=7 f=1 {week}" for week in weeks)
        assert caller.lines(lines, "?precision=s").status_code == 200
        assert len(caller.rows(limit=10_000)) == len(weeks)
    (rule,) = influx.bucket(f"org_{org}")["retentionRules"]
    assert rule["shardGroupDurationSeconds"] == YEAR


@influx_only
def test_older_buckets_are_brought_to_it_by_a_command(influx: Influx, org: int, store: InfluxStore, app: Flask) -> None:
    name = f"org_{org}_old"
    assert Caller(app, org).create(name, retention_seconds=400 * DAY).status_code == 201
    old = {"type": "expire", "everySeconds": 400 * DAY, "shardGroupDurationSeconds": 7 * DAY}
    influx.change(name, retentionRules=[old])
    ((bucket, present, fitting),) = [found for found in store.unfitting_shards() if found[0].name == name]
    assert present == 7 * DAY
    assert store.set_shards(bucket, fitting)
    (rule,) = influx.bucket(name)["retentionRules"]
    assert (rule["everySeconds"], rule["shardGroupDurationSeconds"]) == (400 * DAY, fitting)
    assert name not in [found[0].name for found in store.unfitting_shards()]
