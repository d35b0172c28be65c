"""``heartguard publish``."""

from typing import Annotated

import typer

from ..publish import publish as write


def publish(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where a file is stale.")] = False,
) -> None:
    """Generate schemas/ from the types and endpoints, and docs/policy.md.

    Examples:

      heartguard publish

      heartguard publish --check
    """
    raise typer.Exit(write(check))
