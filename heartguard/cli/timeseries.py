"""``heartguard timeseries``: the points, and the stores that they are kept in."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import ServiceError
from ..local.errors import SetupError
from ..local.stack import Stack
from ..services import SERVICES
from ..settings import SettingsError

timeseries = typer.Typer(name="timeseries", no_args_is_help=True, help="The points: copy them from store to store.")


@timeseries.callback()
def group() -> None:
    """The points, and the stores that they are kept in."""


@timeseries.command()
def copy(
    source: Annotated[str, typer.Option("--from", help="The store to read: postgres or influx.")],
    target: Annotated[str, typer.Option("--to", help="The store to write: postgres or influx.")],
    bucket: Annotated[str | None, typer.Option(help="Only this bucket.")] = None,
    position: Annotated[
        Path | None, typer.Option(help="The file that keeps how far it got. [default: in HEARTGUARD_DATA]")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, wherever it was broken off.")] = False,
) -> None:
    """Copy all points from one store to the other, buckets included, and compare their numbers.

    It can be broken off at any time: called again, it goes on where it was. Points that were written to the source
    meanwhile, with times later than those already copied, come over then too.

    Example:

      heartguard timeseries copy --from postgres --to influx
    """
    for name in (source, target):
        if name not in ("postgres", "influx"):
            raise typer.BadParameter("a store is postgres or influx")
    console = Console(stderr=True)
    # Looked up by name: the kit knows no service.
    transfers = import_module(f"{SERVICES['timeseries'].package}.transfer")
    try:
        stack = Stack()
        opened = transfers.stores(source, target, stack.environment_of(SERVICES["timeseries"]))
        file = position or stack.layout.root / f"timeseries-{source}-{target}.json"
        if restart:
            file.unlink(missing_ok=True)
        transfer = transfers.Transfer(*opened, file, bucket)
        try:
            _run(transfer, console)
            differences = transfer.differences()
        finally:
            transfer.close()
    except (SettingsError, SetupError, ServiceError) as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None
    for found in differences:
        console.print(
            f"{found.bucket} {found.measurement}: {found.source} values there, {found.target} here", markup=False
        )
    if differences:
        raise typer.Exit(1)
    console.print("Both stores have the same number of values of each measurement.")


def _run(transfer: object, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        total = transfer.total()  # type: ignore[attr-defined]
        task = progress.add_task("values", total=total)
        transfer.run(lambda count: progress.advance(task, count))  # type: ignore[attr-defined]
        progress.update(task, description="done", completed=total)  # what had come over before counts too
