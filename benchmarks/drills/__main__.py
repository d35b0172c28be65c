"""``python -m benchmarks.drills``: see --help."""

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from heartguard import __version__
from heartguard.local.errors import SetupError

from ..context import Broken, Context, Unavailable
from ..results import Report, Row, absent
from ..suite import machine
from ..table import table

WIDTH = 160
DRILLS = {
    "scatter": ("one organization scatters points over all time, 50 others work beside it", 1800),
    "heavy": ("one organization asks 100 costly queries, 32 at a time, 50 others work beside it", 1800),
    "kills": ("200 kills of influxd and of the time-series service under writers and readers", 3600),
    "hung": ("influxd hangs for 10 seconds under load", 900),
    "copy": ("5 million values copied from PostgreSQL to InfluxDB and back, broken off six times", 3600),
    "drops": ("200 drops of a bucket under eight readers each", 5400),
}
"""What each is, and the seconds after which it is ended."""
EXAMPLES = """\
drills:
{drills}

examples:
  INFLUXD=/opt/influxdb/influxd python -m benchmarks.drills scatter --small
  python -m benchmarks.drills kills --json kills.json
  python -m benchmarks.drills all

It exits with 1 where something is not as it should be or a drill did not run.
"""


def main() -> NoReturn:
    listed = "\n".join(f"  {name:8} {about}" for name, (about, _) in DRILLS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.drills",
        description="Start a whole HeartGuard on an InfluxDB 2 (INFLUXD or PATH), all of its own, on free ports of"
        " 127.0.0.1 and in a temporary folder (TMPDIR); trouble it, and say what came of it.",
        epilog=EXAMPLES.format(drills=listed),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("drill", choices=[*DRILLS, "all"], metavar="DRILL", help="one of those below, or all")
    parser.add_argument("--small", action="store_true", help="few organizations, short rounds: does it work at all?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result to this file")
    given = parser.parse_args()
    names = list(DRILLS) if given.drill == "all" else [given.drill]
    report = run(names, small=given.small)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(table(report))
    if given.json:
        given.json.write_text(report.to_json(), encoding="utf-8")
    sys.exit(0 if all(row.verdict not in ("missed", "absent") for row in report.rows) else 1)


def run(names: list[str], *, small: bool) -> Report:
    begun, load = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), os.getloadavg()[0]
    rows = [row for name in names for row in attempt(name, small=small)]
    return Report(
        version=__version__, begun=begun, quick=small, machine=machine(),
        load=(round(load, 2), round(os.getloadavg()[0], 2)), rows=rows,
    )  # fmt: skip


def attempt(name: str, *, small: bool) -> list[Row]:
    """Run one. One that cannot be run, or does not come to its end, leaves an absent row that says why."""
    begun = time.monotonic()

    def say(step: str) -> None:
        print(f"{time.monotonic() - begun:6.0f} s  {name}: {step}", file=sys.stderr, flush=True)

    try:
        with ended_in_order(DRILLS[name][1]):
            found: list[Row] = import_module(f".{name}", __package__).run(Context(small, Path(), say))
            return found
    except Unavailable as problem:
        return [absent(name, "not run", "", str(problem))]
    except (Broken, SetupError) as problem:
        return [absent(name, "broke off", "", str(problem))]
    except Exception as problem:  # noqa: BLE001  (the other drills still have something to say)
        traceback.print_exc()
        return [absent(name, "failed", "", repr(problem))]


@contextmanager
def ended_in_order(seconds: int) -> Iterator[None]:
    """Told to end, or when its time is over, it stops what it has started first, as it does on Ctrl-C."""

    def time_is_over(*_: object) -> NoReturn:
        raise Broken(f"it was not done after {seconds} seconds")

    def told_to_end(*_: object) -> NoReturn:
        sys.exit(128 + signal.SIGTERM)

    handlers: dict[signal.Signals, Callable[..., object]] = {
        signal.SIGALRM: time_is_over,
        signal.SIGTERM: told_to_end,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
