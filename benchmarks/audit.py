"""How fast the audit trail records, how fast a page of it is read, and how fast an export is verified.

    python benchmarks/audit.py                       all three
    python benchmarks/audit.py record --events 100000
    python benchmarks/audit.py pages --events 10000000
    python benchmarks/audit.py verify --events 1000000

Prints JSON. ``pages`` asks for the same pages of two organizations in one and the same table, one of which has a
thousand times the events of the other, in turns.
"""

import argparse
import hashlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from redis import Redis

from heartguard import audit
from heartguard.audit.chain import START, Checkpoint, ExportEnd, canonical, link, next_hash
from heartguard.audit.stream import FIELD, GROUP, STREAM
from heartguard.database import Database
from heartguard.local.files import private_folder
from heartguard.local.postgres import Postgres
from heartguard.local.server import Running
from heartguard.local.valkey import Valkey
from heartguard.migrate import migrate
from heartguard.settings import ROOT
from services.audit.src.db_read import Filters, page
from services.audit.src.signing import Signer

KEY = "a benchmark needs no secret worth keeping"
SERVICE_CORE, DATABASE_CORE = 0, 1
LARGE, SMALL = 1, 2
"""Organizations."""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


@contextmanager
def stores() -> Iterator[tuple[Postgres, Valkey, int]]:
    """A migrated, durable PostgreSQL, a Valkey, and the first one's process id."""
    with tempfile.TemporaryDirectory(prefix="hg-") as name:
        folder = Path(name).resolve()
        folder.chmod(0o711)
        secrets = private_folder(folder / "secrets")
        postgres, valkey = Postgres(folder / "postgres", secrets), Valkey(folder / "valkey", secrets)
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {DATABASE_CORE})
        running = [Running(postgres), Running(valkey)]
        os.sched_setaffinity(0, cores)
        try:
            migrate(postgres.url, passwords={"audit": postgres.password("audit")})
            yield postgres, valkey, running[0].pid
        finally:
            for one in running:
                one.stop()


@contextmanager
def service(postgres: Postgres, valkey: Valkey) -> Iterator[int]:
    """The audit service on its core; the process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {
        "PATH": os.environ["PATH"],
        "JWT_SECRET": KEY,
        "AUDIT_SIGNING_KEY": KEY,
        "DATABASE_URL": postgres.url_for("audit"),
        "REDIS_URL": valkey.url,
        "AUDIT_SPOOL": str(postgres.folder.parent / "spool"),
        "LOG_LEVEL": "ERROR",
    }
    serve = [sys.executable, "-m", "heartguard.serve", "audit", "--port", str(port)]
    command = ["taskset", "-c", str(SERVICE_CORE), *serve]
    with subprocess.Popen(command, cwd=ROOT, env=environ) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


def cpu_seconds(pid: int) -> float:
    """Of the process and its living and waited-for children."""
    total = 0.0
    for one in [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]:
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def event(number: int) -> audit.Event:
    return audit.make(
        "TIMESERIES_WRITE",
        str(number % 1000),
        service="timeseries",
        org_id=number % 10 + 1,
        request_id=audit.new_event_id(),
        payload={"bucket": "org_1", "values": number % 5000},
    )


def record(events: int) -> dict[str, Any]:
    """How long the service takes for a backlog in the stream."""
    with stores() as (postgres, valkey, database_pid):
        say(f"{events} events into the stream")
        with Redis.from_url(valkey.url) as client:
            client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
            for first in range(0, events, 1000):
                with client.pipeline(transaction=False) as pipeline:
                    for number in range(first, min(events, first + 1000)):
                        pipeline.xadd(STREAM, {FIELD: audit.encode(event(number))})
                    pipeline.execute()
        say("the service records them")
        with psycopg.connect(postgres.superuser_url, autocommit=True) as look, service(postgres, valkey) as pid:
            begun_at = wait(look, 1)
            begun, service_before, database_before = time.monotonic(), cpu_seconds(pid), cpu_seconds(database_pid)
            wait(look, events)
            seconds = time.monotonic() - begun
            done = events - begun_at
            service_seconds = cpu_seconds(pid) - service_before
            return {
                "events": done,
                "seconds": round(seconds, 2),
                "events_per_second": round(done / seconds),
                "events_per_core_second_of_the_service": round(done / service_seconds),
                "service_core_seconds": round(service_seconds, 2),
                "database_core_seconds": round(cpu_seconds(database_pid) - database_before, 2),
            }


def wait(look: "psycopg.Connection[Any]", events: int) -> int:
    """Until so many events are recorded; how many are."""
    while True:
        found = look.execute("SELECT coalesce(sum(sequence), 0) FROM heartguard_core.audit_chains").fetchone()
        if found and found[0] >= events:
            return int(found[0])
        time.sleep(0.05)


FILL = """
INSERT INTO heartguard_core.audit_events
SELECT %(org)s, n, gen_random_uuid(), (n %% 50)::text,
    (ARRAY['LOGIN','LOGOUT','REQUEST','TIMESERIES_WRITE','USER_UPDATE','ACCESS_DENIED'])[1 + n %% 6],
    (ARRAY['auth','gateway','timeseries','user'])[1 + n %% 4],
    CASE WHEN n %% 50 = 0 THEN 'denied' WHEN n %% 70 = 0 THEN 'failure' ELSE 'success' END,
    t, t, 'r-' || n, '{"bucket":"org_1","values":5000}', sha256(n::text::bytea)
FROM (SELECT n, timestamptz '2025-12-01' + n * (interval '300 days' / %(events)s::bigint) AS t
      FROM generate_series(%(first)s::bigint, %(last)s::bigint) n) e
"""


def pages(events: int, rounds: int) -> dict[str, Any]:
    """Median times of pages, in milliseconds."""
    small = max(1, events // 1000)
    with stores() as (postgres, _, _):
        with psycopg.connect(postgres.superuser_url, autocommit=True) as fill:
            prepare(fill)
            for org_id, count in ((LARGE, events), (SMALL, small)):
                say(f"organization {org_id}: {count} events")
                step = 500_000
                for first in range(1, count + 1, step):
                    values = {"org": org_id, "events": count, "first": first, "last": min(count, first + step - 1)}
                    fill.execute(FILL, values)
            say("indices")
            for statement in indices():
                fill.execute(statement)
            fill.execute("VACUUM (ANALYZE) heartguard_core.audit_events")
        say("pages")
        database = Database(postgres.url_for("audit"), service="bench")
        found = {name: compare(database, filters, rounds) for name, filters in QUESTIONS.items()}
        database.close()
        return {"events": [events, small], "milliseconds_of_large_and_small": found}


def prepare(fill: "psycopg.Connection[Any]") -> None:
    """The partitions, without the indices that are quicker made at the end."""
    fill.execute(
        "SELECT heartguard_core.audit_ensure_partition(m)"
        " FROM generate_series(timestamptz '2025-12-01', timestamptz '2026-10-01', '1 month') m"
    )
    for name in ("time", "actor", "action", "service", "outcome"):
        fill.execute(f"DROP INDEX heartguard_core.audit_events_{name}")


def indices() -> list[str]:
    columns = {"time": "", **{name: f"{name}, " for name in ("actor", "action", "service", "outcome")}}
    return [
        f"CREATE INDEX audit_events_{name} ON heartguard_core.audit_events (org_id, {first}occurred_at, sequence)"
        for name, first in columns.items()
    ]


MIDDLE = "2026-05-01T00:00:00+00:00"
QUESTIONS: dict[str, Filters] = {
    "newest": Filters(),
    "actor": Filters(equal={"actor": "7"}),
    "action": Filters(equal={"action": "ACCESS_DENIED"}),
    "service and outcome": Filters(equal={"service": "auth", "outcome": "denied"}),
    "until": Filters(until=MIDDLE),
    "since, until and actor": Filters(equal={"actor": "10"}, since="2026-01-01T00:00:00+00:00", until=MIDDLE),
    "far down": Filters(before=(1_767_225_600_000_000, 1_000_000)),
}


def compare(database: Database, filters: Filters, rounds: int) -> list[float]:
    """Both organizations in turns, and which one is first in turns, too."""
    times: dict[int, list[float]] = {LARGE: [], SMALL: []}
    for number in range(rounds + 10):
        for org_id in (LARGE, SMALL) if number % 2 else (SMALL, LARGE):
            begun = time.perf_counter()
            with database.transaction(org_id) as tx:
                page(tx, org_id, filters, 51)
            if number >= 10:
                times[org_id].append((time.perf_counter() - begun) * 1000)
    return [round(statistics.median(times[org_id]), 3) for org_id in (LARGE, SMALL)]


def verify(events: int) -> dict[str, Any]:
    """How long the verifier takes for an export, made here without a database."""
    with tempfile.TemporaryDirectory(prefix="hg-") as name:
        file = Path(name) / "export.ndjson"
        say(f"an export of {events} events")
        write_export(file, events)
        say("the verifier reads it")
        begun = time.monotonic()
        command = [sys.executable, "-I", str(ROOT / "heartguard" / "audit" / "verify.py"), str(file)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds = time.monotonic() - begun
        return {
            "events": events,
            "megabytes": round(file.stat().st_size / 1e6),
            "seconds": round(seconds, 1),
            "events_per_second": round(events / seconds),
            "told": told.splitlines()[0][:60],
        }


def write_export(file: Path, events: int) -> None:
    signer = Signer(KEY.encode())
    digest = hashlib.sha256()
    chance = random.Random(1)
    at = "2026-01-01T00:00:00.000000Z"
    with file.open("wb") as out:

        def write(content: Any) -> None:
            line = json.dumps(content, sort_keys=True, separators=(",", ":")).encode() + b"\n"
            digest.update(line)
            out.write(line)

        write({
            "format": "heartguard-audit-1", "org_id": 1, "first_sequence": 1, "last_sequence": events,
            "previous_hash": START.hex(), "key_id": signer.key_id, "public_key": signer.public_key.hex(),
        })  # fmt: skip
        hash_ = START
        for sequence in range(1, events + 1):
            made = audit.Event(
                event_id=audit.new_event_id(), org_id=1, actor=str(chance.randrange(1000)), action="TIMESERIES_WRITE",
                service="timeseries", outcome="success", occurred_at=at, request_id=audit.new_event_id(),
                payload={"bucket": "org_1", "values": sequence % 5000},
            )  # fmt: skip
            content = canonical(link(made, sequence, at))
            hash_ = next_hash(hash_, content)
            line = b'{"event":%b,"hash":"%b"}\n' % (content, hash_.hex().encode())
            digest.update(line)
            out.write(line)
            if sequence % 1000 == 0:
                said = Checkpoint(hash=hash_.hex(), key_id=signer.key_id, org_id=1, sequence=sequence, signed_at=at)
                fields = {name: getattr(said, name) for name in said.__struct_fields__}
                write({"checkpoint": fields, "signature": signer.sign_checkpoint(said).hex()})
        end = ExportEnd(
            events=events, file_sha256=digest.hexdigest(), hash=hash_.hex(), key_id=signer.key_id, org_id=1,
            sequence=events, signed_at=at,
        )  # fmt: skip
        fields = {name: getattr(end, name) for name in end.__struct_fields__}
        write({"end": fields, "signature": signer.sign_export(end).hex()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["record", "pages", "verify", "all"], default="all")
    parser.add_argument("--events", type=int, help="default: 100000, 10000000 and 1000000")
    parser.add_argument("--rounds", type=int, default=200, help="times each page is asked for")
    given = parser.parse_args()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "record": lambda: record(given.events or 100_000),
        "pages": lambda: pages(given.events or 10_000_000, given.rounds),
        "verify": lambda: verify(given.events or 1_000_000),
    }
    chosen = parts if given.what == "all" else {given.what: parts[given.what]}
    print(json.dumps({**{name: run() for name, run in chosen.items()}, "load": os.getloadavg()}, indent=2))


if __name__ == "__main__":
    main()
