"""``heartguard audit``: checking what the trail exported, and putting old parts of it away."""

from pathlib import Path
from typing import Annotated

import typer

from ..audit import verify as verifier

audit = typer.Typer(name="audit", no_args_is_help=True, help="The audit trail: check an export.")


@audit.command()
def verify(
    files: Annotated[list[Path], typer.Argument(help="Parts of one chain, the oldest first.", metavar="FILE…")],
    key: Annotated[Path | None, typer.Option(help="File with the public key; see: heartguard audit key")] = None,
) -> None:
    """Check exports, offline. Exit status 0: whole; 1: altered or cut off; 2: could not be checked.

    The file heartguard/audit/verify.py does the same by itself: it needs nothing but Python.

    Examples:

      heartguard audit verify audit-7.ndjson --key audit.pub

      heartguard audit verify 2026-01.ndjson 2026-02.ndjson audit-7.ndjson
    """
    raise typer.Exit(verifier.run(files, key))
