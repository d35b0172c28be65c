"""24 h of 1 Hz in 1-minute means, of any user, asked one after the other by one client, while the data grows."""

import json
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

from services.influx.src.reindex import Indexes

from .context import Broken, Context, Unavailable
from .results import Row, Target
from .rig import Client, cpu_seconds, folder, free_port, percentile, postgres, service, token, two_cores
from .timeseries import BEGIN, WRITE

QUERY = "/timeseries/query"
DAY = 86_400
USERS = 10
"""Series of a day at 1 Hz that factor 1 stands for: 864,000 points."""
BYTES_PER_POINT = 175
"""What a point takes on disk while it is written, with a margin."""
GROWTH = 1.2
"""How much slower the largest may be than the smallest and count as unchanged."""
AS_THEY_CAME, REINDEXED = "as they came", "index built anew"
FILL = """
    INSERT INTO heartguard_core.points (bucket_id, series_id, ts, value_float)
    SELECT %(bucket)s, s.id, (m * 60 + n) * 1000000000::bigint, 60 + (n * 7 + s.id) %% 400 / 10.0
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) m
    CROSS JOIN unnest(%(series)s::bigint[]) WITH ORDINALITY s(id, number) CROSS JOIN generate_series(0, 59) n
    ORDER BY m, s.number, n
"""
SERIES = """
    INSERT INTO heartguard_core.series (bucket_id, measurement, field, tags, digest)
    SELECT %(bucket)s, 'heart_rate', 'bpm', jsonb_build_object('user_id', n::text), sha256(n::text::bytea)
    FROM generate_series(%(first)s::int, %(last)s::int) n RETURNING id
"""
BIT = 20
"""Minutes filled in at a time."""
VACUUM_TIMEOUT = 900
"""Seconds; it begins every minute, and the largest fill takes it several."""


def fill(context: Context, connection: "psycopg.Connection[Any]", bucket: int, first: int, last: int) -> None:
    """A day at 1 Hz for users ``first`` to ``last``, a minute of each after the other, as devices would send it."""
    users = {"bucket": bucket, "first": first, "last": last}
    series = [row[0] for row in connection.execute(SERIES, users)]
    begin = int(BEGIN.timestamp()) // 60
    for minute in range(begin, begin + 1440, BIT):
        connection.execute(FILL, {"bucket": bucket, "first": minute, "last": minute + BIT - 1, "series": series})
        connection.commit()
        if (minute - begin) % 240 == 0:
            context.say(f"windows: filling in users {first} to {last}, hour {(minute - begin) // 60} of 24")


def run(context: Context) -> list[Row]:
    two_cores()
    factors, tries = context.choose(([1, 10, 100], 100), ([1, 4], 40))
    rows, port = [], free_port()
    with ExitStack() as stack:
        where = stack.enter_context(folder())
        require_space(where, factors[-1] * USERS * DAY)
        database = stack.enter_context(postgres(where))
        running = stack.enter_context(service("timeseries", port, DATABASE_URL=database.store.url_for("timeseries")))
        make_bucket(port)
        with psycopg.connect(database.store.superuser_url) as connection:
            row = connection.execute("SELECT id FROM heartguard_core.buckets").fetchone()
            assert row is not None
            filled = 0
            for factor in factors:
                fill(context, connection, row[0], filled + 1, factor * USERS)
                filled = factor * USERS
                connection.execute("ANALYZE heartguard_core.series")
                connection.commit()
                vacuumed(context, connection)
                context.say(f"windows: asking for them among {filled * DAY:,} points")
                rows.append(ask(port, running.pid, database.pid, filled, tries, AS_THEY_CAME))
        context.say("windows: heartguard timeseries reindex")
        reindexed(database.store.url)
        rows.append(ask(port, running.pid, database.pid, filled, tries, REINDEXED))
    return [*rows, growth(rows[0], rows[-2], AS_THEY_CAME), growth(rows[0], rows[-1], REINDEXED)]


def reindexed(owner_url: str) -> None:
    with Indexes.of(owner_url) as indexes:
        for index in indexes.all():
            indexes.rebuild(index)


def vacuumed(context: Context, connection: "psycopg.Connection[Any]") -> None:
    """Wait until autovacuum has caught up with the points, as it has with what is older than some minutes."""
    context.say("windows: waiting for autovacuum")
    end = time.monotonic() + VACUUM_TIMEOUT
    behind = "SELECT n_ins_since_vacuum > 50000 FROM pg_stat_user_tables WHERE relname = 'points_1'"
    while connection.execute(behind).fetchone() != (False,):
        connection.commit()
        if time.monotonic() > end:
            raise Broken("autovacuum did not catch up")
        time.sleep(1)
    connection.commit()


def make_bucket(port: int) -> None:
    """A first write makes the organization's default bucket."""
    client = Client(port, token())
    client.post(WRITE, json.dumps({"points": [{"measurement": "heart_rate", "fields": {"bpm": 1}}]}).encode())
    client.close()


def require_space(where: Path, points: int) -> None:
    needed, free = points * BYTES_PER_POINT, shutil.disk_usage(where).free
    if free < needed:
        raise Unavailable(
            f"needs {needed / 1e9:.0f} GB in {where.parent}, where {free / 1e9:.0f} GB are free:"
            " set TMPDIR to a folder on a larger disk, or take --quick"
        )


def growth(small: Row, large: Row, state: str) -> Row:
    assert small.value is not None
    assert large.value is not None
    return Row(
        benchmark="windows",
        what=f"p95 with {large.details['points'] / small.details['points']:g} times the data, {state}",
        unit="×", value=round(large.value / small.value, 2), target=Target("≤", GROWTH),
        note=f"unchanged means at most {GROWTH:g} times as long",
    )  # fmt: skip


def ask(port: int, service_pid: int, database_pid: int, users: int, tries: int, state: str) -> Row:
    client = Client(port, token())
    latencies: list[float] = []
    for number in range(tries + 5):
        if number == 5:  # the first ones warm up
            before = cpu_seconds(service_pid), cpu_seconds(database_pid)
            latencies.clear()
        body = {
            "measurement": "heart_rate", "range_start": "2000-01-01T00:00:00Z", "range_stop": "2000-01-02T00:00:00Z",
            "tags": {"user_id": str(1 + number * 7919 % users)}, "aggregate": "mean", "window": "1m", "limit": 2000,
        }  # fmt: skip
        began = time.perf_counter()
        status, answer = client.post(QUERY, json.dumps(body).encode())
        latencies.append((time.perf_counter() - began) * 1000)
        if status != 200 or json.loads(answer)["count"] != 1440:
            raise Broken(f"{status}: {answer[:500]!r}")
    client.close()
    return Row(
        benchmark="windows", what=f"1,440 means among {users * DAY:,} points, {state}, p95", unit="ms",
        value=round(percentile(latencies, 95), 1), target=Target("≤", 50),
        details={
            "p50 ms": round(percentile(latencies, 50), 1),
            "service CPU ms": round((cpu_seconds(service_pid) - before[0]) / tries * 1000, 1),
            "database CPU ms": round((cpu_seconds(database_pid) - before[1]) / tries * 1000, 1),
            "points": users * DAY,
        },
    )  # fmt: skip
