"""``heartguard timeseries``: the points, and the stores that they are kept in."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import ServiceError
from ..listening import load_own
from ..local.errors import SetupError
from ..local.stack import Stack
from ..services import SERVICES
from ..settings import DatabaseSettings, SettingsError, load

timeseries = typer.Typer(
    name="timeseries", no_args_is_help=True, help="The points: copy them from store to store, build their indexes anew."
)


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
    except (SettingsError, SetupError, ServiceError, transfers.TransferError) as error:
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


@timeseries.command()
def reindex(
    everything: Annotated[bool, typer.Option("--all", help="Also those that are dense enough.")] = False,
) -> None:
    """Build PostgreSQL's indexes of points anew, where they have grown loose: old points are read faster then.

    The services go on meanwhile. It needs room on the disk for a second copy of the largest index, and takes about a
    second for a million points. Nothing to do is the usual case: call it every night.

    Examples:

      heartguard timeseries reindex

      DATABASE_URL=postgresql://owner@db.example.org/heartguard_core heartguard timeseries reindex --all
    """
    console = Console(stderr=True)
    module = import_module(f"{SERVICES['timeseries'].package}.reindex")
    try:
        url = load(DatabaseSettings, Stack().environment_for(DatabaseSettings)).database_url
        with module.Indexes.of(url) as indexes:
            found = [index for index in indexes.all() if everything or index.is_loose]
            for number, index in enumerate(found, 1):
                with console.status(f"{number} of {len(found)}: {index.name}, {_megabytes(index.size)}"):
                    size = indexes.rebuild(index)
                console.print(f"{index.name}: {_megabytes(index.size)}, now {_megabytes(size)}", markup=False)
    except (SettingsError, SetupError, module.ReindexError) as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None
    if not found:
        console.print("No index has grown loose.")


@timeseries.command()
def shards(
    apply: Annotated[bool, typer.Option("--apply", help="Change them. Without it they are only named.")] = False,
) -> None:
    """Have InfluxDB make a bucket's new shards for as long a time as TIMESERIES_EARLIEST and its retention ask for.

    New buckets are made so. Call it once for older ones, and again where TIMESERIES_EARLIEST has changed. Shards that
    there are already stay as they are.

    Examples:

      heartguard timeseries shards

      heartguard timeseries shards --apply
    """
    console = Console(stderr=True)
    package = SERVICES["timeseries"].package
    stores, settings = import_module(f"{package}.stores"), import_module(f"{package}.settings")
    try:
        environ = Stack().environment_of(SERVICES["timeseries"])
        store = stores.open_influx(load_own(settings.StoreSettings, SERVICES["timeseries"], environ))
        try:
            found = store.unfitting_shards()
            for bucket, present, fitting in found:
                done = "changed" if apply and store.set_shards(bucket, fitting) else "to be changed"
                console.print(f"{bucket.name}: {_hours(present)} a shard, {_hours(fitting)} fit: {done}", markup=False)
        finally:
            store.close()
    except (SettingsError, SetupError, ServiceError) as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None
    if not found:
        console.print("The shards of all buckets fit.")
    elif not apply:
        console.print("Call it with --apply to change them.")


def _hours(seconds: int) -> str:
    return f"{seconds // 3600:,} h"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
