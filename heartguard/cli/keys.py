"""``heartguard keys``: the keys that sign tokens."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from .. import keyring
from ..local.errors import SetupError
from ..local.stack import Stack
from ..settings import KeySettings, SettingsError, load

keys = typer.Typer(name="keys", no_args_is_help=True, help="The keys that sign tokens: list them, rotate them.")


@keys.command("list")
def list_keys() -> None:
    """Show the keys, and which of them signs. Never the secrets.

    Example:

      heartguard keys list
    """
    with _failures():
        _show(_settings())


@keys.command()
def rotate(
    delay: Annotated[int, typer.Option(min=0, help="Seconds until the new key signs.")] = keyring.ACTIVATION_DELAY,
    compromised: Annotated[
        bool, typer.Option("--compromised", help="Refuse all other keys at once: everybody has to sign in again.")
    ] = False,
) -> None:
    """Add a key. Running services notice within a second; nobody is signed out.

    The new key signs after a delay, so that every service knows it by then. The one before it verifies until the
    last token that it signed has expired.

    Examples:

      heartguard keys rotate

      heartguard keys rotate --compromised
    """
    with _failures():
        settings = _settings()
        keyring.rotate(settings, delay=delay, compromised=compromised)
        _show(settings)


def _settings() -> KeySettings:
    return load(KeySettings, Stack().environment_for(KeySettings))


def _show(settings: KeySettings) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("KID", "STATE", "SIGNS FROM", "VERIFIES UNTIL"):
        table.add_column(column)
    for row in keyring.described(keyring.stored(settings), time.time()):
        table.add_row(*row)
    Console(highlight=False).print(table)


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except (SetupError, SettingsError, OSError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
