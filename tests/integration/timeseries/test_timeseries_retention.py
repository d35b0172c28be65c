"""Points really expire: partitions ahead of time, dropped when they are over, and nothing for a client to abuse."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import text

from heartguard.errors import Unavailable
from heartguard.sweeper import Sweeper
from services.influx.src import db
from services.influx.src.db import PostgresStore
from services.influx.src.store import Selection, Series, StoredBucket
from services.influx.src.times import MAX_TIME, MIN_TIME, SECOND

from ..waiting import wait_until
from .conftest import Clock, add, postgres_only

HOUR = 3600 * SECOND
M = Series("m", ())


@pytest.fixture
def bucket(store: PostgresStore, org: int) -> Iterator[StoredBucket]:
    """Keeps 8 hours, in partitions of one hour; dropped at the end, so that no other test has to sweep it."""
    made = store.create_bucket(org, f"org_{org}", retention_seconds=8 * 3600, description=None)
    assert made is not None
    yield made
    store.drop_bucket(made.org_id, made.name)


def write(store: PostgresStore, bucket: StoredBucket, *times: int) -> None:
    batch = store.batch(bucket)
    for at in times:
        add(batch, M, at, {"f": float(at)})
    batch.write()


def read(store: PostgresStore, bucket: StoredBucket) -> list[int]:
    everything = Selection(
        measurement="m", start=MIN_TIME, stop=MAX_TIME + 1, fields=None, tags={}, aggregate=None, window=1, limit=100
    )
    return [row.time for row in store.select(bucket, everything)]


def partitions(superuser: Any, bucket: StoredBucket) -> dict[int, int]:
    """How many points lie in each partition, by its number; the default partition is -1."""
    found = {}
    with superuser.transaction() as tx:
        names = tx.execute(
            text("SELECT relname FROM pg_class WHERE relname ~ :name"),
            {"name": f"^points_{bucket.id}_(default|[0-9]+)$"},
        ).scalars()
        for name in list(names):
            number = name.rpartition("_")[2]
            count = tx.exec_driver_sql(f"SELECT count(*) FROM heartguard_core.{name}").scalar_one()
            found[-1 if number == "default" else int(number)] = count
    return found


@postgres_only
def test_partitions_cover_the_retention_and_two_hours_ahead(
    store: PostgresStore, superuser: Any, bucket: StoredBucket, clock: Clock
) -> None:
    this_hour = clock.now // HOUR
    assert sorted(partitions(superuser, bucket)) == [-1, *range(this_hour - 8, this_hour + 3)]


@postgres_only
def test_odd_times_make_no_partitions(store: PostgresStore, superuser: Any, bucket: StoredBucket, clock: Clock) -> None:
    before = set(partitions(superuser, bucket))
    far = [clock.now + hours * HOUR for hours in range(10, 60)] + [MAX_TIME]
    write(store, bucket, clock.now, *far)
    store.sweep()
    after = partitions(superuser, bucket)
    assert set(after) == before
    assert (after[-1], after[clock.now // HOUR]) == (51, 1)
    assert read(store, bucket) == [clock.now, *far]


@postgres_only
def test_expired_partitions_are_dropped_and_new_ones_made(
    store: PostgresStore, superuser: Any, bucket: StoredBucket, clock: Clock
) -> None:
    hour = clock.now // HOUR
    old, new = clock.now - 7 * HOUR, clock.now
    write(store, bucket, old, new)
    clock.forward(2 * 3600)
    store.sweep()
    assert sorted(partitions(superuser, bucket)) == [-1, *range(hour - 6, hour + 5)]
    assert read(store, bucket) == [new]


@postgres_only
def test_early_points_move_to_the_partition_made_for_them(
    store: PostgresStore, superuser: Any, bucket: StoredBucket, clock: Clock
) -> None:
    early = clock.now + 5 * HOUR
    write(store, bucket, early, early + 1)
    assert partitions(superuser, bucket)[-1] == 2
    clock.forward(4 * 3600)
    store.sweep()
    found = partitions(superuser, bucket)
    assert (found[-1], found[early // HOUR]) == (0, 2)
    write(store, bucket, early, early + 2)
    assert read(store, bucket) == [early, early + 1, early + 2]


@postgres_only
def test_expired_points_of_the_default_partition_are_deleted(
    store: PostgresStore, superuser: Any, bucket: StoredBucket, clock: Clock
) -> None:
    """They came early, and then nobody swept for a long time."""
    write(store, bucket, clock.now + 5 * HOUR)
    clock.forward(100 * 3600)
    store.sweep()
    assert sum(partitions(superuser, bucket).values()) == 0


@postgres_only
def test_buckets_that_keep_for_ever_have_one_partition(store: PostgresStore, superuser: Any, org: int) -> None:
    bucket = store.create_bucket(org, f"org_{org}", retention_seconds=0, description=None)
    assert bucket is not None
    write(store, bucket, MIN_TIME, 0, MAX_TIME - 1)
    store.sweep()
    assert read(store, bucket) == [MIN_TIME, 0, MAX_TIME - 1]
    assert partitions(superuser, bucket) == {}


@postgres_only
@pytest.mark.parametrize("retention", [3600, 3601, 86_400 * 365, 3_153_600_000])
def test_any_retention_is_a_dozen_partitions(
    store: PostgresStore, superuser: Any, org: int, retention: int, clock: Clock
) -> None:
    bucket = store.create_bucket(org, f"org_{org}", retention_seconds=retention, description=None)
    assert bucket is not None
    write(store, bucket, clock.now - (retention - 1) * SECOND, clock.now)
    with superuser.transaction() as tx:
        parent = f"heartguard_core.points_{bucket.id}"
        count = tx.execute(
            text("SELECT count(*) FROM pg_inherits WHERE inhparent = cast(:p AS regclass)"), {"p": parent}
        )
        assert 4 <= count.scalar_one() <= 13
    assert len(read(store, bucket)) == 2


def series_of(superuser: Any, bucket: StoredBucket) -> int:
    statement = text("SELECT count(*) FROM heartguard_core.series WHERE bucket_id = :bucket")
    with superuser.transaction() as tx:
        return int(tx.execute(statement, {"bucket": int(bucket.id)}).scalar_one())


@postgres_only
def test_series_whose_points_have_all_expired_are_cleared_away(
    store: PostgresStore, superuser: Any, bucket: StoredBucket, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few at a time; and who has written them goes on to write them."""
    monkeypatch.setattr(db, "LOOKED_AT_ONCE", 2)
    batch = store.batch(bucket)
    for number in range(5):
        add(batch, Series("m", (("n", str(number)),)), clock.now, {"f": 1.0})
    batch.write()
    clock.forward(6 * 3600)
    write(store, bucket, clock.now)
    store.sweep()
    assert series_of(superuser, bucket) == 6
    clock.forward(6 * 3600)
    for left in (4, 2, 1):
        store.sweep()
        assert series_of(superuser, bucket) >= left
    for _ in range(4):
        store.sweep()
    assert series_of(superuser, bucket) == 1
    batch = store.batch(bucket)
    add(batch, Series("m", (("n", "3"),)), clock.now, {"f": 2.0})
    batch.write()
    assert read(store, bucket) == [clock.now - 6 * HOUR, clock.now]


@postgres_only
def test_a_writer_that_waits_for_the_clearing_finds_its_series_gone_and_makes_it_anew(
    store: PostgresStore, superuser: Any, bucket: StoredBucket, clock: Clock
) -> None:
    write(store, bucket, clock.now)
    clock.forward(12 * 3600)
    with superuser.transaction() as tx:
        tx.execute(
            text("SELECT heartguard_core.expire(:bucket, :now, 10)"), {"bucket": int(bucket.id), "now": clock.now}
        )
    writer = threading.Thread(target=write, args=(store, bucket, clock.now))
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%KEY SHARE%'")
    with superuser.transaction() as tx:
        clear = text("SELECT heartguard_core.forget_series(:bucket, 10)")
        assert tx.execute(clear, {"bucket": int(bucket.id)}).scalar_one() == 1
        writer.start()
        wait_until(lambda: _count(superuser, waiting) > 0)
    writer.join(10)
    assert read(store, bucket) == [clock.now]


@contextmanager
def holding(superuser: Any, statement: str) -> Iterator[None]:
    """A transaction of somebody else, under way meanwhile."""
    with superuser.engine.connect() as connection:
        connection.execute(text(statement))
        yield
        connection.rollback()


@postgres_only
def test_what_is_in_use_is_swept_the_next_time(
    store: PostgresStore, superuser: Any, bucket: StoredBucket, clock: Clock
) -> None:
    store.drop_bucket(bucket.org_id, bucket.name)
    with holding(superuser, "SELECT count(*) FROM heartguard_core.points"):
        store.sweep()
    assert partitions(superuser, bucket) != {}
    store.sweep()
    assert partitions(superuser, bucket) == {}


@postgres_only
def test_a_bucket_in_disorder_does_not_keep_the_others_from_being_swept(
    store: PostgresStore, superuser: Any, bucket: StoredBucket, org: int, clock: Clock
) -> None:
    other = store.create_bucket(org, f"org_{org}_other", retention_seconds=8 * 3600, description=None)
    assert other is not None
    with superuser.transaction() as tx:
        tx.exec_driver_sql(f"DROP TABLE heartguard_core.points_{int(bucket.id)}_default")
    before = partitions(superuser, other)
    clock.forward(3600)
    store.sweep()
    assert set(partitions(superuser, other)) != set(before)
    store.drop_bucket(org, bucket.name)


@postgres_only
def test_one_process_sweeps_a_bucket_at_a_time(
    store: PostgresStore, superuser: Any, bucket: StoredBucket, clock: Clock
) -> None:
    before = partitions(superuser, bucket)
    clock.forward(3600)
    with holding(superuser, f"SELECT pg_advisory_xact_lock({0x53574550}, hashint8({int(bucket.id)}))"):
        store.sweep()
    assert partitions(superuser, bucket) == before
    store.sweep()
    assert set(partitions(superuser, bucket)) != set(before)


@postgres_only
def test_a_point_on_its_way_to_the_default_partition_finds_the_one_made_meanwhile(
    store: PostgresStore, superuser: Any, bucket: StoredBucket, clock: Clock
) -> None:
    early = clock.now + 5 * HOUR
    number = early // HOUR
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'COPY%points%'")
    writer = threading.Thread(target=write, args=(store, bucket, early))
    with superuser.transaction() as tx:
        tx.execute(
            text("SELECT heartguard_core.add_partition(:bucket, :number, :begin, :end)"),
            {"bucket": int(bucket.id), "number": number, "begin": number * HOUR, "end": (number + 1) * HOUR},
        )
        writer.start()
        wait_until(lambda: _count(superuser, waiting) > 0)
    writer.join(10)
    assert read(store, bucket) == [early]
    assert partitions(superuser, bucket)[number] == 1


def _count(superuser: Any, statement: object) -> int:
    with superuser.transaction() as tx:
        return int(tx.execute(statement).scalar_one())  # type: ignore[call-overload]


def test_the_sweeper_goes_on_after_a_failure_until_it_is_stopped() -> None:
    calls: list[float] = []

    def sweep() -> None:
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise Unavailable

    sweeper = Sweeper(sweep, 0.01)
    wait_until(lambda: len(calls) >= 3)
    sweeper.stop()
    count = len(calls)
    time.sleep(0.05)
    assert len(calls) == count
