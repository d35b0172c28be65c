"""A server program of ours: started, awaited, stopped."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from .errors import SetupError, explain


class TooSlow(SetupError):
    """Something did not happen in time."""


START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0


class Store(Protocol):
    """What the stack and the tests need to know of an embedded server."""

    name: str
    folder: Path
    stop_signal: signal.Signals

    @property
    def port(self) -> int | None:
        """Of TCP; None where it listens on a socket in its folder."""
        ...

    @property
    def url(self) -> str: ...

    def prepare(self) -> None:
        """Make its folder, its secrets and whatever else must be there before it starts."""
        ...

    def command(self) -> list[str]:
        """What to run, in :attr:`folder`."""
        ...

    def answers(self) -> bool:
        """Whether it can be used now. Raises :class:`SetupError` where waiting is no use."""
        ...

    def is_unused(self) -> bool:
        """Whether no server works in the folder, not even a predecessor that has been told to end."""
        ...


def wait_until(ready: Callable[[], bool], what: str, timeout: float = START_TIMEOUT) -> None:
    """Poll ``ready``; raises :class:`TooSlow` saying ``what`` did not happen in ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > end:
            raise TooSlow(f"{what} within {timeout:g} seconds")
        time.sleep(0.02)


class Running:
    """A store run by this very process (not by the supervisor), as tests and tools do."""

    def __init__(self, store: Store) -> None:
        self.store = store
        store.prepare()
        self._log = store.folder.with_name(f"{store.name}.log")
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603
                    store.command(), cwd=store.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
        except OSError as error:
            raise explain(error, f"starting {store.name}") from error
        try:
            wait_until(self._answers, f"{store.name} did not answer")
        except SetupError:
            self.stop()
            raise

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise SetupError(f"{self.store.name} ended at once:\n{tail(self._log)}")
        return self.store.answers()

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """As a crash would."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(STOP_TIMEOUT)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(self.store.stop_signal)
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.kill()


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log file."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
