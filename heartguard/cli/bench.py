"""``heartguard bench``: how fast HeartGuard is, beside others. The benchmarks themselves are in ``benchmarks/``."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ..settings import ROOT

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "heartguard" / "bench"
WIDTH = 160
"""Of the table where it does not go to a terminal."""


def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="gateway, latency, ingest, lines, windows, media, sign-in, start; default: all."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small rounds: all in a few minutes, rough figures.")] = False,
    json: Annotated[Path | None, typer.Option(help="Also write the result to this file.", dir_okay=False)] = None,
    chart: Annotated[Path | None, typer.Option(help="Also draw it into this file (SVG).", dir_okay=False)] = None,
    cache: Annotated[Path, typer.Option(help="Folder for the gateways of others, installed on demand.")] = CACHE,
) -> None:
    """Measure HeartGuard beside others, on this machine, and say which targets are met.

    It starts its own stores and servers, on free ports of 127.0.0.1 and in a
    temporary folder (TMPDIR), and stops them. Let nothing else run meanwhile.

    All of it takes 45 minutes, with --quick seven; the largest data of
    "windows" needs 17 GB. What cannot be measured, because a tool is missing,
    is listed as absent with the reason: InfluxDB, say, where neither INFLUXD
    nor PATH leads to an influxd.

    Exits with 1 where a benchmark did not run, else with 0, targets met or not.

    Examples:

      heartguard bench --quick

      heartguard bench gateway latency

      heartguard bench --json result.json --chart docs/benchmarks.svg
    """
    suite = _suite()
    chosen = names or list(suite.BENCHMARKS)
    if unknown := [name for name in chosen if name not in suite.BENCHMARKS]:
        _fail(f"There is no benchmark {', '.join(unknown)}; there are: {', '.join(suite.BENCHMARKS)}")
    for file in (json, chart):
        if file is not None and not file.absolute().parent.is_dir():
            _fail(f"There is no folder {file.absolute().parent} to write {file.name} into.")
    with _ended_in_order():
        report = _run(suite, chosen, quick=quick, cache=cache)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(import_module("benchmarks.table").table(report))
    if json is not None:
        json.write_text(report.to_json(), encoding="utf-8")
    if chart is not None:
        chart.write_text(import_module("benchmarks.chart").chart(report), encoding="utf-8")
    raise typer.Exit(0 if report.complete else 1)


def _suite() -> Any:
    """The module that lists the benchmarks. It is no part of an installed package, only of the source tree."""
    if not (ROOT / "benchmarks" / "suite.py").is_file():
        _fail(
            f"The benchmarks are not in {ROOT}: they belong to the source tree, not to the installed package."
            " Run heartguard bench from a checkout of HeartGuard."
        )
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return import_module("benchmarks.suite")


def _run(suite: Any, names: list[str], *, quick: bool, cache: Path) -> Any:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (
        SpinnerColumn(),
        MofNCompleteColumn(),
        BarColumn(20),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(names))

        def say(step: str) -> None:
            progress.update(task, description=step)
            if not console.is_terminal:
                console.print(step, markup=False)

        context = import_module("benchmarks.context").Context(quick, cache.expanduser().absolute(), say)
        return suite.run(progress.track(names, task_id=task), context)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Told to end, it stops what it has started first, as it does on Ctrl-C."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)
