"""Points in: JSON over HTTP, up to the door of a store that keeps nothing, and into PostgreSQL.

The service has one core, PostgreSQL the other; the load, which costs little, goes where there is room.
"""

import json
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from subprocess import Popen

from .context import Broken, Context
from .results import Row, Target
from .rig import (
    SECRET,
    Client,
    cpu_seconds,
    folder,
    free_port,
    percentile,
    postgres,
    program,
    service,
    together,
    token,
    two_cores,
)

WRITE = "/timeseries/write"
POINTS = 5_000
"""In a batch."""
CONNECTIONS = 4
MINUTE = b"2024-06-01T10:00"
BEGIN = datetime(2000, 1, 1, tzinfo=UTC)
SHAPES = {"one series": 1, "1,000 series": 1_000}
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
        client, body, minute = Client(port, token()), batch(number, series), first_minute
        while time.monotonic() < end:
            minute += 1
            sent = at(body, minute)
            before = time.perf_counter()
            status, answer = client.post(WRITE, sent)
            latencies.append((time.perf_counter() - before) * 1000)
            if status != 200:
                raise Broken(f"{status}: {answer[:500]!r}")
            acknowledged[number] += POINTS
        client.close()

    began = time.monotonic()
    together([lambda n=n: write(n) for n in range(CONNECTIONS)])  # type: ignore[misc]
    return sum(acknowledged), time.monotonic() - began, latencies


def measure(port: int, running: Popen[bytes], series: int, seconds: float, database: int | None) -> dict[str, float]:
    """``rate`` is in points per second; CPU times are in µs per point, latencies in ms."""
    load(port, series, min(3, seconds), 0)
    before = cpu_seconds(running.pid), cpu_seconds(database) if database else 0.0
    points, took, latencies = load(port, series, seconds, 1_000_000)
    spent = cpu_seconds(running.pid) - before[0], (cpu_seconds(database) if database else 0.0) - before[1]
    return {
        "rate": points / took,
        "service CPU": spent[0] / points * 1e6,
        "database CPU": spent[1] / points * 1e6,
        "p50": percentile(latencies, 50),
        "p95": percentile(latencies, 95),
    }


def door(shape: str, seconds: float) -> Row:
    """Up to the store's door. What counts is the service's own CPU time."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.door", f"--port={port}"]
    with program(command, f"http://127.0.0.1:{port}/timeseries/health", {"JWT_SECRET": SECRET}) as running:
        found = measure(port, running, SHAPES[shape], seconds, None)
    return Row(
        benchmark="ingest", what=f"JSON up to the store's door, {shape}", unit="points/s·core",
        value=round(1e6 / found["service CPU"]), target=Target("≥", 200_000),
        details={"by the clock, points/s": round(found["rate"]), **latencies(found)},
    )  # fmt: skip


def ingest(shape: str, seconds: float) -> Row:
    """Into PostgreSQL, which has a batch on disk before it is acknowledged."""
    port = free_port()
    with ExitStack() as stack:
        database = stack.enter_context(postgres(stack.enter_context(folder())))
        running = stack.enter_context(service("timeseries", port, DATABASE_URL=database.store.url_for("timeseries")))
        found = measure(port, running, SHAPES[shape], seconds, database.pid)
    cpu = {f"{name} µs/point": round(found[name], 2) for name in ("service CPU", "database CPU")}
    return Row(
        benchmark="ingest", what=f"JSON into PostgreSQL, {shape}", unit="points/s", value=round(found["rate"]),
        target=Target("≥", 100_000), details={**cpu, **latencies(found)},
        note=f"{seconds:g} s, batches of {POINTS:,}",
    )  # fmt: skip


def latencies(found: dict[str, float]) -> dict[str, float]:
    return {f"request {name} ms": round(found[name], 1) for name in ("p50", "p95")}


def run(context: Context) -> list[Row]:
    two_cores()
    rows = []
    for shape in SHAPES:
        context.say(f"ingest: up to the store's door, {shape}")
        rows.append(door(shape, context.choose(15, 4)))
    for shape in SHAPES:
        context.say(f"ingest: into PostgreSQL, {shape}")
        rows.append(ingest(shape, context.choose(60, 6)))
    return rows
