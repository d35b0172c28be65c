"""Line protocol into an InfluxDB that keeps nothing; into a real one, HeartGuard on it and HeartGuard on PostgreSQL.

The same generator sends the same batches to every setup, each in its turn, and every batch holds new points.
"""

import statistics
import time
from dataclasses import dataclass, field
from functools import partial

from . import influx_sink
from .context import Broken, Context
from .influxd import BUCKET
from .results import Row, Target, absent
from .rig import cpu_seconds, folder, together, two_cores
from .setups import ALONE, ON_INFLUX, Setup, Stage, all_cpu_seconds, settle, staged

POINTS = 5_000
"""In a batch."""
CONNECTIONS = 4
SHAPES = {"one series": 1, "1,000 series": 1_000}
"""How many series each connection writes to."""
TARGET = Target("≥", 0.7)
UNIT = "points/s"
WARM_UP = 2.0
"""Seconds."""
FIRST = 17_000_000
"""The number of the first batch. A batch holds 100 seconds: its times are that number and five digits of their own."""
NUMBER = b"########"


def batch(connection: int, series: int) -> bytes:
    """A batch as devices send it, in milliseconds, but for its number."""
    return "".join(
        f"heart_rate,user_id={connection * 1_000 + point % series},device=chest-strap bpm={60 + point * 7 % 400 / 10}"
        f" {NUMBER.decode()}{point * 100_000 // POINTS:05d}\n"
        for point in range(POINTS)
    ).encode()


def numbered(body: bytes, number: int) -> bytes:
    return body.replace(NUMBER, b"%08d" % number)


@dataclass
class Contender:
    """A setup, and what was seen of it. ``cpu`` is in µs per point, by program; ``number`` is of the next batch.

    ``points`` are all that were acknowledged.
    """

    setup: Setup
    rates: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    cpu: list[dict[str, float]] = field(default_factory=list)
    number: int = FIRST
    points: int = 0

    def turn(self, series: int, seconds: float) -> None:
        """Write for so long on all connections."""
        before, begun = self._spent(), time.monotonic()
        took: list[float] = []
        numbers = [self.number] * CONNECTIONS
        work = [
            partial(self._write, connection, series, begun + seconds, took, numbers)
            for connection in range(CONNECTIONS)
        ]
        together(work)  # type: ignore[arg-type]
        points = POINTS * len(took)
        self.points += points
        self.rates.append(points / (time.monotonic() - begun))
        self.latencies.append(statistics.median(took))
        self.cpu.append({name: (spent - before[name]) / points * 1e6 for name, spent in self._spent().items()})
        self.number = max(numbers)

    def _write(self, connection: int, series: int, end: float, took: list[float], numbers: list[int]) -> None:
        client, body = self.setup.client("text/plain; charset=utf-8"), batch(connection, series)
        while time.monotonic() < end:
            sent = numbered(body, numbers[connection])
            numbers[connection] += 1
            before = time.perf_counter()
            status, answer = client.post(self.setup.write(BUCKET, "ms"), sent)
            took.append((time.perf_counter() - before) * 1000)
            if status not in {200, 204}:
                raise Broken(f"{self.setup.name}: {status}: {answer[:500]!r}")
        client.close()

    def _spent(self) -> dict[str, float]:
        """CPU seconds until now, by program; ``all`` are those and Valkey and the generator, too."""
        return {"all": all_cpu_seconds(), **{name: cpu_seconds(pid) for name, pid in self.setup.pids.items()}}

    def forget(self) -> None:
        for seen in (self.rates, self.latencies, self.cpu):
            seen.clear()

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    def cpu_of(self, program: str) -> float:
        return statistics.median(one[program] for one in self.cpu)

    def row(self, shape: str, ours: "Contender | None") -> Row:
        """``ours`` is the one that InfluxDB alone is held against."""
        details = {f"CPU µs/point, {name}": round(self.cpu_of(name), 2) for name in ["all", *self.setup.pids]}
        ratio = None
        if ours is not None:
            ratio = round(ours.rate / self.rate, 3)
            details["ratio by CPU"] = round(self.cpu_of("all") / ours.cpu_of("all"), 3)
        return Row(
            benchmark="lines", what=f"{self.setup.name}, {shape}", unit=UNIT, value=round(self.rate),
            ours=self.setup.is_ours, ratio=ratio, target=None if ratio is None else TARGET,
            details={**details, "request p50 ms": round(statistics.median(self.latencies), 1)},
            note=f"{CONNECTIONS} connections, batches of {POINTS:,}",
        )  # fmt: skip


def compare(context: Context, stage: Stage) -> list[Row]:
    """Every shape, every round, every setup in its turn."""
    rounds, seconds = context.choose((5, 8.0), (2, 3.0))
    contenders = [Contender(setup) for setup in stage.setups]
    rows = []
    for shape, series in SHAPES.items():
        for number in range(rounds + 1):
            for contender in contenders:
                what = f"round {number} of {rounds}" if number else "warming up"
                context.say(f"lines: {shape}, {what}, {contender.setup.name}")
                settle()
                contender.turn(series, seconds if number else min(WARM_UP, seconds))
                if not number:
                    contender.forget()
        rows += table(shape, contenders, stage.missing)
        for contender in contenders:
            contender.forget()
    return rows


def table(shape: str, contenders: list[Contender], missing: str) -> list[Row]:
    ours = next((one for one in contenders if one.setup.name == ON_INFLUX), None)
    rows = [one.row(shape, ours if one.setup.name == ALONE else None) for one in contenders]
    if ours is None:
        rows.append(absent("lines", f"{ON_INFLUX}, {shape}", UNIT, missing, TARGET))
    return rows


def run(context: Context) -> list[Row]:
    two_cores()
    rows = influx_sink.run(context)
    with folder() as where, staged(where) as stage:
        return rows + compare(context, stage)
