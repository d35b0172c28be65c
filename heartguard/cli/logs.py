"""``heartguard logs``."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from ..local.errors import SetupError
from ..local.layout import Layout
from ..local.server import tail
from ..settings import environment

POLL_SECONDS = 0.3


def logs(
    service: Annotated[str | None, typer.Argument(help="Only this one: gateway, auth, postgres, valkey …")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing what is added.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines of each to begin with.")] = 20,
) -> None:
    """Show the logs of the stack on this machine.

    Examples:

      heartguard logs

      heartguard logs auth -n 200

      heartguard logs gateway -f
    """
    try:
        files = find(Layout.of(environment()), service)
    except SetupError as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from None
    show = printer(named=len(files) > 1)
    with ExitStack() as opened:
        followers = [opened.enter_context(Follower(file)) for file in files]
        for file in files:
            for line in tail(file, lines).splitlines() if lines else ():
                show(file.stem, line)
        while follow:
            for follower in followers:
                for line in follower.new_lines():
                    show(follower.name, line)
            time.sleep(POLL_SECONDS)


def find(layout: Layout, service: str | None) -> list[Path]:
    """The log files of the stack, or the one asked for."""
    found = sorted(layout.logs.glob("*.log")) if layout.logs.is_dir() else []
    if not found:
        raise SetupError(f"There are no logs in {layout.logs}: the stack has not been started yet.")
    if service is None:
        return found
    chosen = [file for file in found if file.stem == service]
    if not chosen:
        raise SetupError(f"There is no log of {service}; there are: {', '.join(file.stem for file in found)}")
    return chosen


def printer(*, named: bool) -> Callable[[str, str], None]:
    """Prints lines, with the name of the log they come from where there are several."""

    def show(name: str, line: str) -> None:
        typer.echo(f"{name:<10} | {line}" if named else line)

    return show


class Follower:
    """Gives the lines that are added to a log from now on, over its rotation too."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self._path = path
        self._file = path.open("rb")
        self._file.seek(0, 2)
        self._rest = b""

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def new_lines(self) -> Iterator[str]:
        yield from self._read(self._file)
        if self._rotated():
            self._file.close()
            self._file = self._path.open("rb")
            yield from self._read(self._file)

    def _read(self, file: BinaryIO) -> Iterator[str]:
        *whole, self._rest = (self._rest + file.read()).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")

    def _rotated(self) -> bool:
        try:
            return self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:  # just now being rotated
            return False
