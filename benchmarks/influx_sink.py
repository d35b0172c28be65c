"""Line protocol in: plain lines over HTTP, through the service, into an InfluxDB that keeps nothing.

``python -m benchmarks.influx_sink --port 8999`` is that one: it answers what the service asks, and drops what it is
sent.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from services.influx.src.points import Rules
from services.influx.src.survey import survey
from services.influx.src.times import MIN_TIME

from .context import Broken, Context
from .results import Row, Target
from .rig import OTHER_CORE, Client, cpu_seconds, free_port, percentile, program, service, together, token, two_cores

POINTS = 5_000
CONNECTIONS = 2
BEGIN = 1_717_236_000
SHAPES = {"one series": 1, "1,000 series": 1_000}
WRITE = "/timeseries/write?precision=ms"
BUCKET = {"id": "0" * 16, "orgID": "0" * 16, "name": "org_1", "retentionRules": [], "createdAt": "2024-06-01T10:00:00Z"}


class Door(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(200, json.dumps({"buckets": [BUCKET]}).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(204 if "/write" in self.path else 200, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def lines(series: int, first: int) -> bytes:
    """A batch as devices send it, in milliseconds."""
    return "".join(
        f"heart_rate,user_id={number % series},device=chest-strap bpm={60 + number * 7 % 400 / 10} {first + number}\n"
        for number in range(POINTS)
    ).encode()


def load(port: int, series: int, seconds: float) -> tuple[int, list[float]]:
    """Write for so long on all connections: points acknowledged, and milliseconds of each request."""
    latencies: list[float] = []
    end = time.monotonic() + seconds

    def write(number: int) -> None:
        client = Client(port, token(), "text/plain")
        body = lines(series, (BEGIN + number) * 1000)
        while time.monotonic() < end:
            before = time.perf_counter()
            status, answer = client.post(WRITE, body)
            latencies.append((time.perf_counter() - before) * 1000)
            if status != 200:
                raise Broken(f"{status}: {answer[:500]!r}")
        client.close()

    together([lambda n=n: write(n) for n in range(CONNECTIONS)])  # type: ignore[misc]
    return POINTS * len(latencies), latencies


def measure(shape: str, seconds: float) -> Row:
    """What counts is the service's own CPU time."""
    port, door = free_port(), free_port()
    influx = {"INFLUX_URL": f"http://127.0.0.1:{door}", "INFLUX_TOKEN": "none", "INFLUX_ORG": "none"}
    command = [sys.executable, "-m", "benchmarks.influx_sink", f"--port={door}"]
    with ExitStack() as stack:
        stack.enter_context(program(command, f"{influx['INFLUX_URL']}/ready", {}, core=OTHER_CORE))
        running = stack.enter_context(service("timeseries", port, TIMESERIES_BACKEND="influx", **influx))
        load(port, SHAPES[shape], min(2, seconds))
        before = cpu_seconds(running.pid)
        points, latencies = load(port, SHAPES[shape], seconds)
        spent = (cpu_seconds(running.pid) - before) / points * 1e6
    steps = profile(SHAPES[shape])
    steps["all the rest, µs/point"] = round(spent - sum(steps.values()), 3)
    return Row(
        benchmark="lines", what=f"line protocol to InfluxDB's door, {shape}", unit="points/s·core",
        value=round(1e6 / spent), target=Target("≥", 1_000_000),
        details={**steps, "request p50 ms": round(percentile(latencies, 50), 1)},
        note=f"{seconds:g} s, batches of {POINTS:,}",
    )  # fmt: skip


def profile(series: int) -> dict[str, float]:
    """CPU time of the step that goes through every line, in µs per point."""
    text = lines(series, BEGIN * 1000)
    rules = Rules(user_id=None, oldest=MIN_TIME, received=0)
    return {"looking over, µs/point": fastest(lambda: survey(text, 1_000_000, rules))}


def fastest(work: Callable[[], object]) -> float:
    times = []
    for _ in range(20):
        before = time.process_time()
        work()
        times.append(time.process_time() - before)
    return round(min(times) / POINTS * 1e6, 3)


def run(context: Context) -> list[Row]:
    two_cores()
    rows = []
    for shape in SHAPES:
        context.say(f"lines: to InfluxDB's door, {shape}")
        rows.append(measure(shape, context.choose(15, 4)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Door)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
