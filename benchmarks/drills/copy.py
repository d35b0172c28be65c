"""All points are copied from PostgreSQL to InfluxDB and back, and the copying is killed three times each way."""

import json
import signal
import subprocess
import sys
import time
from bisect import bisect_left
from collections import Counter
from pathlib import Path

from heartguard.local.influx import NAME as ORG
from heartguard.services import SERVICES
from heartguard.settings import ROOT
from services.influx.src.db import PostgresStore
from services.influx.src.store import Series, StoredBucket
from services.influx.src.transfer import stores

from ..context import Broken, Context
from ..results import Row
from .findings import NONE
from .site import Site, site
from .values import Digests, Part, in_influx, in_postgres, parts

SCALE, SMALL = 1000, 20
"""Thousands of values, five of each."""
KILLED_AT = (0.25, 0.5, 0.75)
"""The parts of all values that were copied when the copying is killed."""
RETENTIONS = {"kept": 30 * 86_400}
"""Of buckets whose names end so, in seconds; the others keep points for ever."""
COPY_SECONDS = 1500.0


def fill(store: PostgresStore, org: int, all_parts: list[Part]) -> None:
    for part in all_parts:
        bucket = bucket_of(store, org, part.bucket)
        for number in range(part.series):
            series, times = Series(part.measurement, part.tags_of(number)), part.times(number)
            batch = store.batch(bucket)
            for field in part.fields:
                batch.add(series, field, times, part.values(number, field))
            batch.write()


def bucket_of(store: PostgresStore, org: int, name: str) -> StoredBucket:
    retention = RETENTIONS.get(name.rpartition("_")[2], 0)
    found = store.bucket(org, name) or store.create_bucket(
        org, name, retention_seconds=retention, description="a drill"
    )
    assert found
    return found


class Copying:
    """``heartguard timeseries copy`` in one direction, killed and called again."""

    def __init__(self, one: Site, source: str, target: str, all_parts: list[Part]) -> None:
        self._site = one
        self._arguments = ["timeseries", "copy", "--from", source, "--to", target]
        self._position = Path(one.stack.layout.root) / f"timeseries-{source}-{target}.json"
        self._parts = all_parts
        self.seconds = 0.0
        self.kills: list[float] = []
        """The part that was copied at each."""

    def run(self) -> None:
        """Raises :class:`Broken` where it does not succeed in the end."""
        for part in (*KILLED_AT, None):
            begun = time.monotonic()
            process = self._start()
            try:
                self._watch(process, part)
            finally:
                self.seconds += time.monotonic() - begun
                process.kill()
                said, _ = process.communicate()
            ended_well = process.returncode == (0 if part is None else -signal.SIGKILL)
            if not ended_well:
                raise Broken(f"heartguard {' '.join(self._arguments)} ended with {process.returncode}: {said[-500:]!r}")

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "heartguard.cli.main", *self._arguments]
        return subprocess.Popen(
            command, cwd=ROOT, env=self._site.settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def _watch(self, process: "subprocess.Popen[bytes]", part: float | None) -> None:
        """Wait for its end, or until that part of all values is copied, and kill it then."""
        end = time.monotonic() + COPY_SECONDS
        while process.poll() is None:
            if time.monotonic() > end:
                raise Broken(f"the copying was not done after {COPY_SECONDS:g} s")
            if part is not None and (done := self.copied()) >= part:
                process.kill()
                self.kills.append(done)
                return
            time.sleep(0.1)

    def copied(self) -> float:
        """The part of all values that lies before the position."""
        if not self._position.exists():
            return 0.0
        position = json.loads(self._position.read_text())
        done = 0
        for part in self._parts:
            following = position.get(part.bucket, {}).get(part.measurement)
            if following is not None:
                done += part.series * len(part.fields) * bisect_left(part.times(0), following)
        return done / sum(part.size for part in self._parts)


def different(expected: Digests, found: Digests) -> Counter[str]:
    faults = Counter[str]()
    for key in expected.keys() | found.keys():
        if expected.get(key) != found.get(key):
            count, _ = expected.get(key, (0, ""))
            faults[f"{' '.join(map(str, key))}: {found.get(key, (0, ''))[0]} of {count}"] += 1
    return faults


def run(context: Context) -> list[Row]:
    rows = []
    with site(context.say) as one:
        org = one.sign_up().org_id
        all_parts = parts(org, int(time.time()), context.choose(SCALE, SMALL))
        total = sum(part.size for part in all_parts)
        environ = one.stack.environment_of(SERVICES["timeseries"])
        postgres, influx = stores("postgres", "influx", environ)
        assert isinstance(postgres, PostgresStore)
        context.say(f"{total:,} values into PostgreSQL")
        fill(postgres, org, all_parts)
        expected = {key: value for part in all_parts for key, value in part.digests().items()}
        rows.append(compared("before", different(expected, in_postgres(one.superuser_url)), expected))

        context.say("from PostgreSQL to InfluxDB")
        there = Copying(one, "postgres", "influx", all_parts)
        there.run()
        context.say("comparing")
        chosen = sorted({(part.bucket, part.measurement) for part in all_parts})
        rows += [speed("postgres to influx", there, total)]
        found = in_influx(one.influxd.url, one.influxd.token, ORG, chosen)
        rows.append(compared("in InfluxDB", different(expected, found), expected))

        for bucket in postgres.buckets(org):
            postgres.drop_bucket(org, bucket.name)
        left = in_postgres(one.superuser_url)
        if left:
            raise Broken(f"{len(left)} series are left in PostgreSQL after their buckets were dropped")
        context.say("from InfluxDB to PostgreSQL")
        back = Copying(one, "influx", "postgres", all_parts)
        back.run()
        context.say("comparing")
        rows += [speed("influx to postgres", back, total)]
        rows.append(compared("in PostgreSQL again", different(expected, in_postgres(one.superuser_url)), expected))
        postgres.close()
        influx.close()
    return rows


def compared(where: str, faults: "Counter[str]", expected: Digests) -> Row:
    return Row(
        benchmark="copy", what=f"series that are not as written, {where}", unit="", value=faults.total(), target=NONE,
        details={"series": len(expected), "values": sum(count for count, _ in expected.values())},
        note="; ".join(list(faults)[:5]),
    )  # fmt: skip


def speed(direction: str, copying: Copying, total: int) -> Row:
    kills = {f"killed at % ({number})": round(100 * part, 1) for number, part in enumerate(copying.kills, 1)}
    return Row(
        benchmark="copy", what=f"{direction}, four starts and the comparison included", unit="values/s",
        value=round(total / copying.seconds), details={"seconds": round(copying.seconds, 1), **kills},
    )  # fmt: skip
