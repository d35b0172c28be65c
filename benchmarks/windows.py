"""24 h of 1 Hz in 1-minute means, of any user, asked one after the other by one client, while the data grows.

In turns by InfluxDB alone, HeartGuard on it, and HeartGuard on PostgreSQL, all with the same points.
"""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from services.influx.src.reindex import Indexes

from .context import Broken, Context, Unavailable
from .influxd import ORG
from .results import Row, Target, absent
from .rig import cpu_seconds, folder, percentile, together, two_cores
from .setups import ALONE, BUCKET, ON_INFLUX, ON_POSTGRES, Setup, Stage, settle, staged
from .timeseries import BEGIN

DAY = 86_400
USERS = 10
"""Series of a day at 1 Hz that factor 1 stands for: 864,000 points."""
BYTES_PER_POINT = 195
"""What a point takes on disk in both stores while it is written, with a margin."""
SLOWEST = Target("≤", 50)
GROWTH = Target("≤", 1.2)
"""How much slower the largest may be than the smallest and count as unchanged."""
TURNS = 5
WARM_UP = 5
"""Questions."""
REINDEXED = ", index built anew"
SETTLE = 120.0
"""Seconds that the stores have after they were filled."""

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

BLOCK = 100
"""Seconds whose times begin alike, which makes a batch of another block by replacing that beginning."""
GROUP = 50
"""Users in a batch."""
WRITERS = 4
BEGINNING = b"#######"


def fill_postgres(context: Context, connection: "psycopg.Connection[Any]", first: int, last: int) -> None:
    """A day at 1 Hz for users ``first`` to ``last``, a minute of each after the other, as devices would send it."""
    row = connection.execute("SELECT id FROM heartguard_core.buckets").fetchone()
    assert row is not None
    users = {"bucket": row[0], "first": first, "last": last}
    series = [row[0] for row in connection.execute(SERIES, users)]
    begin = int(BEGIN.timestamp()) // 60
    for minute in range(begin, begin + 1440, BIT):
        part = {"bucket": users["bucket"], "first": minute, "last": minute + BIT - 1, "series": series}
        connection.execute(FILL, part)
        connection.commit()
        if (minute - begin) % 240 == 0:
            context.say(f"windows: users {first} to {last} into PostgreSQL, hour {(minute - begin) // 60} of 24")
    connection.execute("ANALYZE heartguard_core.series")
    connection.commit()


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


def fill_influx(context: Context, setup: Setup, first: int, last: int) -> None:
    """The same into HeartGuard's bucket in InfluxDB, past HeartGuard, a block of each after the other."""
    groups = [group(users, min(users + GROUP - 1, last)) for users in range(first, last + 1, GROUP)]
    batches = _batches(context, groups, f"windows: users {first} to {last} into InfluxDB")
    turn = threading.Lock()

    def write() -> None:
        client = setup.client("text/plain")
        while True:
            with turn:
                body = next(batches, None)
            if body is None:
                break
            status, answer = client.post(setup.write(BUCKET, "s"), body)
            if status != 204:
                raise Broken(f"{status}: {answer[:500]!r}")
        client.close()

    together([write] * WRITERS)


def group(first: int, last: int) -> bytes:
    """A block of these users, but for the beginning of its times."""
    return b"".join(
        b"heart_rate,user_id=%d bpm=%.1f %b%02d\n" % (user, 60 + (second * 7 + user) % 400 / 10, BEGINNING, second)
        for user in range(first, last + 1)
        for second in range(BLOCK)
    )


def _batches(context: Context, groups: list[bytes], what: str) -> Iterator[bytes]:
    begin = int(BEGIN.timestamp()) // BLOCK
    for block in range(begin, begin + DAY // BLOCK):
        if (block - begin) % (DAY // BLOCK // 6) == 0:
            context.say(f"{what}, hour {(block - begin) * BLOCK // 3600} of 24")
        for users in groups:
            yield users.replace(BEGINNING, b"%07d" % block)


@dataclass
class Asked:
    """What was seen of a setup among so many points. CPU times are in seconds."""

    setup: Setup
    points: int
    state: str = ""
    latencies: list[float] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)

    def ask(self, first: int, questions: int) -> None:
        """So many questions, each about another user; the first ones warm up."""
        client = self.setup.client("application/json" if self.setup.is_ours else "application/vnd.flux")
        question, means = (by_json, in_json) if self.setup.is_ours else (by_flux, in_csv)
        before: dict[str, float] = {}
        for number in range(-WARM_UP, questions):
            if number == 0:
                before = self._spent()
            user = 1 + (first + number) * 7919 % (self.points // DAY)
            begun = time.perf_counter()
            status, answer = client.post(*question(user))
            took = (time.perf_counter() - begun) * 1000
            if status != 200 or means(answer) != DAY // 60:
                raise Broken(f"{self.setup.name}: {status}: {answer[:500]!r}")
            if number >= 0:
                self.latencies.append(took)
        client.close()
        for name, spent in self._spent().items():
            self.cpu[name] = self.cpu.get(name, 0.0) + spent - before[name]

    def _spent(self) -> dict[str, float]:
        return {name: cpu_seconds(pid) for name, pid in self.setup.pids.items()}

    @property
    def p95(self) -> float:
        return percentile(self.latencies, 95)

    def row(self, ours: "Asked | None") -> Row:
        """``ours`` is what InfluxDB alone is held against."""
        cpu = {f"CPU ms, {name}": round(spent / len(self.latencies) * 1000, 1) for name, spent in self.cpu.items()}
        return Row(
            benchmark="windows", what=f"{self.what}, p95", unit="ms", value=round(self.p95, 1), ours=self.setup.is_ours,
            ratio=None if ours is None else round(ours.p95 / self.p95, 2),
            target=SLOWEST if self.setup.is_ours else None,
            details={"p50 ms": round(percentile(self.latencies, 50), 1), **cpu, "points": self.points},
        )  # fmt: skip

    @property
    def what(self) -> str:
        return f"{self.setup.name}, {self.points:,} points{self.state}"


def by_json(user: int) -> tuple[str, bytes]:
    """The path to post to, and the question."""
    asked = {
        "measurement": "heart_rate", "range_start": "2000-01-01T00:00:00Z", "range_stop": "2000-01-02T00:00:00Z",
        "tags": {"user_id": str(user)}, "aggregate": "mean", "window": "1m", "limit": 2000,
    }  # fmt: skip
    return "/timeseries/query", json.dumps(asked).encode()


def in_json(answer: bytes) -> int:
    """How many means an answer holds."""
    return int(json.loads(answer)["count"])


def by_flux(user: int) -> tuple[str, bytes]:
    flux = (
        f'from(bucket: "{BUCKET}") |> range(start: 2000-01-01T00:00:00Z, stop: 2000-01-02T00:00:00Z)'
        f' |> filter(fn: (r) => r._measurement == "heart_rate" and r.user_id == "{user}")'
        " |> aggregateWindow(every: 1m, fn: mean, createEmpty: false)"
    )
    return f"/api/v2/query?org={ORG}", flux.encode()


def in_csv(answer: bytes) -> int:
    return answer.count(b"\n,_result,")


def ask(context: Context, setups: list[Setup], points: int, tries: int, state: str = "") -> list[Asked]:
    """What is seen of each, in turns."""
    found = [Asked(setup, points, state) for setup in setups]
    for turn in range(TURNS):
        for asked in found:
            context.say(f"windows: asking, turn {turn + 1} of {TURNS}, {asked.what}")
            asked.ask(turn * 1000, tries // TURNS)
    return found


def table(found: list[Asked]) -> list[Row]:
    ours = next((asked for asked in found if asked.setup.name == ON_INFLUX), None)
    return [asked.row(ours if asked.setup.name == ALONE else None) for asked in found]


def growth(small: Asked, large: Asked) -> Row:
    return Row(
        benchmark="windows",
        what=f"{large.setup.name}, p95 with {large.points / small.points:g} times the data{large.state}",
        unit="×", value=round(large.p95 / small.p95, 2), ours=large.setup.is_ours,
        ratio=None, target=GROWTH if large.setup.is_ours else None,
        note=f"unchanged means at most {GROWTH.bound:g} times as long",
    )  # fmt: skip


def run(context: Context) -> list[Row]:
    two_cores()
    factors, tries = context.choose(([1, 10, 100], 100), ([1, 4], 40))
    rows: list[Row] = []
    with folder() as where:
        require_space(where, factors[-1] * USERS * DAY)
        with staged(where) as stage, psycopg.connect(stage.database.store.superuser_url) as connection:
            found: list[list[Asked]] = []
            filled = 0
            for factor in factors:
                fill(context, stage, connection, filled + 1, factor * USERS)
                filled = factor * USERS
                found.append(ask(context, stage.setups, filled * DAY, tries))
                rows += table(found[-1])
            context.say("windows: heartguard timeseries reindex")
            reindexed(stage.database.store.url)
            ours = [setup for setup in stage.setups if setup.name == ON_POSTGRES]
            found.append(ask(context, ours, filled * DAY, tries, REINDEXED))
            rows += table(found[-1])
    if stage.missing:
        rows.append(absent("windows", ON_INFLUX, "ms", stage.missing, SLOWEST))
    firsts = {asked.setup.name: asked for asked in found[0]}
    return rows + [growth(firsts[asked.setup.name], asked) for asked in [*found[-2], *found[-1]]]


def fill(context: Context, stage: Stage, connection: "psycopg.Connection[Any]", first: int, last: int) -> None:
    fill_postgres(context, connection, first, last)
    vacuumed(context, connection)
    if (alone := stage.setup(ALONE)) is not None:
        fill_influx(context, alone, first, last)
    context.say("windows: waiting for the stores to come to rest")
    settle(SETTLE)


def reindexed(owner_url: str) -> None:
    with Indexes.of(owner_url) as indexes:
        for index in indexes.all():
            indexes.rebuild(index)


def require_space(where: Path, points: int) -> None:
    needed, free = points * BYTES_PER_POINT, shutil.disk_usage(where).free
    if free < needed:
        raise Unavailable(
            f"needs {needed / 1e9:.0f} GB in {where.parent}, where {free / 1e9:.0f} GB are free:"
            " set TMPDIR to a folder on a larger disk, or take --quick"
        )
