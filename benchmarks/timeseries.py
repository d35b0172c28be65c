"""The time-series service: points in, up to the store and into PostgreSQL, and windows out while the data grows.

    python benchmarks/timeseries.py [door ingest windows] [--seconds 60] [--factors 1 10 100] [--json result.json]

Needs Linux with two cores and ``taskset``, and nothing else running. The service has one core, PostgreSQL the other;
the load generator, which costs little, goes where there is room. Everything listens on 127.0.0.1 or on a socket in a
temporary folder, and is stopped and removed at the end.
"""

import argparse
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import Popen
from typing import Any

import psycopg
from rig import SECRET, Client, cpu_seconds, folder, free_port, percentile, postgres, program, say, service, together

WRITE, QUERY = "/timeseries/write", "/timeseries/query"
POINTS = 5_000
CONNECTIONS = 4
MINUTE = b"2024-06-01T10:00"
BEGIN = datetime(2000, 1, 1, tzinfo=UTC)
SHAPES = {"one series": 1, "1,000 series": 1_000}
DAY = 86_400
USERS = 10
"""Series of a day at 1 Hz that factor 1 stands for: 864,000 points."""
RATE = 100
"""Points a second and device in a batch, so that it stays within a minute."""


def batch(device: int, series: int) -> bytes:
    """A batch as devices send it, all within one minute, which :func:`at` sets."""
    points = []
    for number in range(POINTS):
        seconds, part = divmod(number // series, RATE)
        points.append(
            {
                "measurement": "heart_rate",
                "tags": {"user_id": str(device * 1_000 + number % series), "device": "chest-strap"},
                "fields": {"bpm": 60 + number * 7 % 400 / 10},
                "timestamp": f"{MINUTE.decode()}:{seconds:02d}.{part * 10:03d}Z",
            }
        )
    return json.dumps({"points": points}).encode()


def at(body: bytes, minute: int) -> bytes:
    return body.replace(MINUTE, (BEGIN + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M").encode())


def load(port: int, series: int, seconds: float, first_minute: int) -> tuple[int, float, list[float]]:
    """Write for so long on all connections: points acknowledged, seconds, and milliseconds of each request."""
    acknowledged = [0] * CONNECTIONS
    latencies: list[float] = []
    end = time.monotonic() + seconds

    def write(number: int) -> None:
        client, body, minute = Client(port), batch(number, series), first_minute
        while time.monotonic() < end:
            minute += 1
            sent = at(body, minute)
            before = time.perf_counter()
            status, answer = client.post(WRITE, sent)
            latencies.append((time.perf_counter() - before) * 1000)
            if status != 200:
                raise RuntimeError(f"{status}: {answer[:500]!r}")
            acknowledged[number] += POINTS
            if number == 0 and minute % 50 == 0:
                say(f"  {sum(acknowledged):>12,} points")
        client.close()

    began = time.monotonic()
    together([lambda n=n: write(n) for n in range(CONNECTIONS)])  # type: ignore[misc]
    return sum(acknowledged), time.monotonic() - began, latencies


def measure(port: int, running: Popen[bytes], series: int, seconds: float, database: int | None) -> dict[str, float]:
    load(port, series, min(3, seconds), 0)
    before = cpu_seconds(running.pid), cpu_seconds(database) if database else 0.0
    points, took, latencies = load(port, series, seconds, 1_000_000)
    spent = cpu_seconds(running.pid) - before[0], (cpu_seconds(database) if database else 0.0) - before[1]
    return {
        "points": points,
        "points_per_second": round(points / took),
        "service_cpu_us_per_point": round(spent[0] / points * 1e6, 2),
        "points_per_core_second": round(points / spent[0]),
        "database_cpu_us_per_point": round(spent[1] / points * 1e6, 2),
        "request_p50_ms": round(percentile(latencies, 50), 1),
        "request_p95_ms": round(percentile(latencies, 95), 1),
    }


def door(seconds: float) -> dict[str, Any]:
    """JSON over HTTP up to the store, which keeps nothing."""
    found = {}
    for name, series in SHAPES.items():
        say(f"up to the store's door, {name}")
        port = free_port()
        command = [sys.executable, str(Path(__file__).with_name("door.py")), "--port", str(port)]
        with program(command, f"http://127.0.0.1:{port}/timeseries/health", JWT_SECRET=SECRET) as running:
            found[name] = measure(port, running, series, seconds, None)
    return found


def ingest(where: Path, seconds: float) -> dict[str, Any]:
    """JSON over HTTP into PostgreSQL, which has it on disk before it is acknowledged."""
    found = {}
    for name, series in SHAPES.items():
        say(f"into PostgreSQL for {seconds:g} s, {name}")
        port = free_port()
        with postgres(where / str(series)) as database, service(database.store.url_for("timeseries"), port) as running:
            found[name] = measure(port, running, series, seconds, database.pid)
    return found


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


def fill(connection: "psycopg.Connection[Any]", bucket: int, first: int, last: int) -> None:
    """A day at 1 Hz for users ``first`` to ``last``, a minute of each after the other, as devices would send it."""
    users = {"bucket": bucket, "first": first, "last": last}
    series = [row[0] for row in connection.execute(SERIES, users)]
    begin = int(BEGIN.timestamp()) // 60
    for minute in range(begin, begin + 1440, BIT):
        connection.execute(FILL, {"bucket": bucket, "first": minute, "last": minute + BIT - 1, "series": series})
        connection.commit()
        if (minute - begin) % 240 == 0:
            say(f"  users {first} to {last}: {(minute - begin) // 60} of 24 hours")


def windows(where: Path, factors: list[int], tries: int) -> dict[str, Any]:
    """24 h of 1 Hz in 1-minute means, of any user, asked one after the other by one client."""
    found = {}
    port = free_port()
    with postgres(where / "windows") as database, service(database.store.url_for("timeseries"), port) as running:
        client = Client(port)
        client.post(WRITE, json.dumps({"points": [{"measurement": "heart_rate", "fields": {"bpm": 1}}]}).encode())
        with psycopg.connect(database.store.url) as connection:
            row = connection.execute("SELECT id FROM heartguard_core.buckets").fetchone()
            assert row is not None
            filled = 0
            for factor in sorted(factors):
                say(f"windows over {factor} times the data: {factor * USERS * DAY:,} points")
                fill(connection, row[0], filled + 1, factor * USERS)
                filled = factor * USERS
                connection.execute("ANALYZE heartguard_core.series")
                connection.commit()
                found[f"{factor} x"] = ask(client, running.pid, database.pid, filled, tries)
    return found


def ask(client: Client, service_pid: int, database_pid: int, users: int, tries: int) -> dict[str, float]:
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
            raise RuntimeError(f"{status}: {answer[:500]!r}")
    return {
        "points": users * DAY,
        "p50_ms": round(percentile(latencies, 50), 1),
        "p95_ms": round(percentile(latencies, 95), 1),
        "service_cpu_ms": round((cpu_seconds(service_pid) - before[0]) / tries * 1000, 1),
        "database_cpu_ms": round((cpu_seconds(database_pid) - before[1]) / tries * 1000, 1),
    }


def table(results: dict[str, Any]) -> None:
    for name, rows in results.items():
        columns = list(next(iter(rows.values())))
        print(f"\n{name:<14}" + "".join(f"{column.replace('_', ' '):>28}" for column in columns))
        for row, values in rows.items():
            print(f"{row:<14}" + "".join(f"{values[column]:>28,}" for column in columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("names", nargs="*", default=["door", "ingest", "windows"], metavar="door|ingest|windows")
    parser.add_argument("--seconds", type=float, default=60, help="length of each write load (default: %(default)s)")
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 10, 100], help="of data (default: %(default)s)")
    parser.add_argument("--tries", type=int, default=100, help="queries at each size (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="for the data: factor 100 takes some 12 GB")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    given = parser.parse_args()
    results: dict[str, Any] = {}
    with folder(given.folder) as where:
        if "door" in given.names:
            results["door"] = door(min(given.seconds, 15))
        if "ingest" in given.names:
            results["ingest"] = ingest(where, given.seconds)
        if "windows" in given.names:
            results["windows"] = windows(where, given.factors, given.tries)
    table(results)
    print(json.dumps(results))
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
