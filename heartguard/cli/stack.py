"""The subcommands that run the stack on this machine: up, down, status, run, migrate."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..local.errors import SetupError
from ..local.stack import Stack, Status
from ..services import SERVICES
from ..settings import ROOT, SettingsError

NOT_RUNNING = 3
"""Exit code of ``status``, as of ``systemctl status``."""


def up() -> None:
    """Start the stack and wait until it is ready: embedded PostgreSQL and Valkey, migrations, the services.

    Does nothing where it runs already. Data, logs and sockets are kept in HEARTGUARD_DATA.

    Examples:

      heartguard up

      HEARTGUARD_DATA=/srv/heartguard GATEWAY_PORT=8080 heartguard up
    """
    console = Console(highlight=False, soft_wrap=True)
    begun = time.monotonic()
    with _failures():
        stack = Stack()
        with console.status("Starting HeartGuard …") as spinner:

            def report(step: str) -> None:
                console.print(f"  {step} …")
                spinner.update(f"{step} …")

            started = stack.up(report)
    if started:
        console.print(f"[bold green]HeartGuard is ready[/] ({time.monotonic() - begun:.1f} s).")
    else:
        console.print("[bold green]HeartGuard is running already.[/]")
    _introduce(stack, console)


def _introduce(stack: Stack, console: Console) -> None:
    """Say where it is and how to sign in; never the password itself."""
    place = "in the environment" if os.environ.get("BOOTSTRAP_ADMIN_PASSWORD") else f"in {ROOT / '.env'}"
    if file := stack.environ.get("BOOTSTRAP_ADMIN_PASSWORD_FILE"):
        place = f"in {file}"
    console.print(f"  Address    {stack.gateway}")
    console.print(f"  Admin      {stack.admin_email}")
    console.print(f"  Password   {place}: BOOTSTRAP_ADMIN_PASSWORD")
    console.print(f"  Data       {stack.layout.root}")


def down() -> None:
    """Stop the stack. Its data is kept for the next start.

    Example:

      heartguard down
    """
    console = Console(highlight=False, soft_wrap=True)
    with _failures(), console.status("Stopping HeartGuard …"):
        stack = Stack()
        stopped = stack.down()
    where = f"its data is kept in {stack.layout.root}"
    console.print(f"HeartGuard is stopped; {where}." if stopped else "HeartGuard is not running.")


def status() -> None:
    """Show what runs. Exits with 3 where something does not.

    Example:

      heartguard status && echo all is well
    """
    with _failures():
        found = Stack().status()
    table = Table(box=None, pad_edge=False)
    for column in ("NAME", "STATE", "PID", "UP", "PORT", "READY"):
        table.add_column(column)
    for row in found:
        table.add_row(*_cells(row))
    Console(highlight=False).print(table)
    if not all(row.well for row in found):
        raise typer.Exit(NOT_RUNNING)


def _cells(row: Status) -> list[str]:
    ready = {True: "yes", False: "no", None: ""}[row.ready]
    port = str(row.port or "")
    if row.state is None:
        return [row.name, "stopped", "", "", port, ready]
    seconds = str(timedelta(seconds=row.state.seconds)) if row.state.running else ""
    return [row.name, row.state.state.lower(), str(row.state.pid or ""), seconds, port, ready]


def run(
    service: Annotated[str, typer.Argument(help=", ".join(SERVICES))],
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: its own, e.g. AUTH_PORT.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Run one service in the foreground, with the stores of the stack (which must be up) or the given ones.

    Examples:

      heartguard run auth

      heartguard run gateway --port 5010
    """
    if service not in SERVICES:
        _fail(f"There is no service {service}; there are: {', '.join(SERVICES)}")
    from ..serve import serve

    with _failures():
        seen = Stack().environment_of(SERVICES[service])
        os.environ.clear()
        os.environ.update(seen)
        serve(SERVICES[service], host=host, port=port)


def migrate() -> None:
    """Bring the database (DATABASE_URL, or else the running stack's) to the newest schema.

    Examples:

      heartguard migrate

      DATABASE_URL=postgresql://user:password@db.example.org/heartguard_core heartguard migrate
    """
    with _failures():
        Stack().migrate()
    typer.echo("The database has the newest schema.")


@contextmanager
def _failures() -> Iterator[None]:
    """What went wrong, alone on standard error, and exit code 1."""
    try:
        yield
    except (SetupError, SettingsError) as error:
        _fail(str(error))


def _fail(message: str) -> None:
    typer.echo(message, err=True)
    raise typer.Exit(1)
