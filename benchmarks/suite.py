"""Which benchmarks there are, and how they are run one after the other."""

import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from heartguard import __version__

from .context import Context, Unavailable
from .results import Report, Row, absent


@dataclass(frozen=True)
class Benchmark:
    """A module of this package with a function ``run``, and what it measures."""

    module: str
    about: str

    def run(self, context: Context) -> list[Row]:
        found: list[Row] = import_module(f".{self.module}", __package__).run(context)
        return found


BENCHMARKS = {
    "gateway": Benchmark("gateway", "the proxied path beside Envoy, a Node gateway and a plain Flask one"),
    "latency": Benchmark("latency", "what the gateway adds to a request when it has little to do"),
    "ingest": Benchmark("timeseries", "points a second, up to the store's door and into PostgreSQL"),
    "lines": Benchmark("lines", "line protocol a second, beside InfluxDB alone and on PostgreSQL"),
    "windows": Benchmark("windows", "24 h of 1 Hz in 1-minute means while the data grows"),
    "media": Benchmark("media", "uploads beside writing the same bytes directly, and the memory that they take"),
    "sign-in": Benchmark(
        "sign_in", "sign-ins a second beside the bare Argon2id cost, and whether times tell addresses"
    ),
    "start": Benchmark("start", "how soon the installed stack is ready, and how much memory it takes"),
}


def run(names: Iterable[str], context: Context) -> Report:
    """Run those benchmarks. One that cannot be run, or fails, leaves an absent row that says why.

    Interrupted (Ctrl-C), it reports what has been measured until then.
    """
    begun, load = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), os.getloadavg()[0]
    rows: list[Row] = []
    name = ""
    try:
        for name in names:
            rows += attempt(name, context)
    except KeyboardInterrupt:
        rows.append(absent(name, "interrupted", "", "and what would have come after it"))
    return Report(
        version=__version__, begun=begun, quick=context.quick, machine=machine(),
        load=(round(load, 2), round(os.getloadavg()[0], 2)), rows=rows,
    )  # fmt: skip


def attempt(name: str, context: Context) -> list[Row]:
    steps: list[str] = []

    def say(step: str) -> None:
        steps.append(step)
        context.say(step)

    say(f"{name}: {BENCHMARKS[name].about}")
    try:
        return BENCHMARKS[name].run(replace(context, say=say))
    except Unavailable as problem:
        return [absent(name, "not run", "", str(problem))]
    except Exception as problem:  # noqa: BLE001  (the other benchmarks still have something to say)
        return [absent(name, "failed", "", f"{steps[-1]}: {type(problem).__name__}: {problem}")]


def machine() -> dict[str, str]:
    """What the figures were taken on."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
