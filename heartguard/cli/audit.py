"""``heartguard audit``: checking what the trail exported, and putting old months of it away."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from ..audit import verify as verifier
from ..local.errors import SetupError
from ..settings import DatabaseSettings, SettingsError, SigningSettings, load

audit = typer.Typer(name="audit", no_args_is_help=True, help="The audit trail: check exports, archive old months.")

SERVICE = "services.audit.src"


@dataclass(frozen=True, kw_only=True)
class ArchiveSettings(SigningSettings, DatabaseSettings):
    """``DATABASE_URL`` is the owner's."""


@audit.command()
def verify(
    files: Annotated[list[Path], typer.Argument(help="Parts of one chain, the oldest first.", metavar="FILE…")],
    key: Annotated[
        list[Path] | None, typer.Option(help="File with the public key (see: heartguard audit key), or a former one.")
    ] = None,
) -> None:
    """Check exports, offline. Exit status 0: whole; 1: altered or cut off; 2: could not be checked; 3: a part only.

    The file heartguard/audit/verify.py does the same by itself: it needs nothing but Python.

    Examples:

      heartguard audit verify audit-7.ndjson --key audit.pub

      heartguard audit verify 2026-01.ndjson 2026-02.ndjson audit-7.ndjson --key audit.pub --key former.pub
    """
    raise typer.Exit(verifier.run(files, key or ()))


@audit.command("key")
def show_key() -> None:
    """Print the public key that checkpoints and exports are signed with.

    Example:

      heartguard audit key > audit.pub
    """
    with _failures():
        typer.echo(_signer(_settings(SigningSettings)).public_key.hex())


@audit.command()
def archive(
    folder: Annotated[Path, typer.Argument(help="Where the files go; made if need be.")],
    before: Annotated[
        datetime,
        typer.Option(formats=["%Y-%m-%d"], help="Months that end before this day; not the one that it is now."),
    ],
) -> None:
    """Write old months into files, check them, and only then take them out of the database.

    The chains go on from where the files end. Keep the files: with later exports they make up the whole chain.

    Examples:

      heartguard audit archive --before 2025-01-01 /backup/audit

      DATABASE_URL=postgresql://owner@db.example.org/heartguard_core heartguard audit archive --before 2025-01-01 .
    """
    with _failures():
        settings = _settings(ArchiveSettings)
        module: Any = import_module(f"{SERVICE}.archive")
        owner = module.Owner(settings.database_url)
        try:
            files = module.archive(owner, _signer(settings), before.date(), folder)
        except module.Refused as error:
            raise SetupError(str(error)) from None
    for file in files:
        typer.echo(file)
    typer.echo(f"{len(files)} files" if files else "There is no month that old.", err=True)


def _settings(settings: type) -> Any:
    """From the running stack, whose database's owner archives, or from the environment."""
    from ..local.stack import Stack

    return load(settings, Stack().environment_for(settings))


def _signer(settings: SigningSettings) -> Any:
    return import_module(f"{SERVICE}.signing").Signer(settings.signing_key, settings.former_keys)


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except (SetupError, SettingsError, OSError, verifier.Altered, verifier.Unchecked) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
