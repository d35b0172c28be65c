"""How soon the installed stack is ready, and how much memory it takes once it has worked a little."""

import re
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from heartguard.services import SERVICES
from heartguard.settings import ROOT

from .context import Broken, Context
from .results import Row, Target
from .rig import children, clean_settings, folder, free_port

TIMEOUT = 120
"""Seconds that a command may take."""
SECONDS, MEGABYTES = Target("≤", 10), Target("≤", 600)
MEASURES = {"Pss": "pages that are shared count once", "Rss": "pages that are shared count in each process"}


class Stack:
    """A stack in a folder of its own, run by the ``heartguard`` command."""

    def __init__(self, where: Path) -> None:
        self._data = where / "data"
        self._environ = {
            **clean_settings(),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(where),
            "HEARTGUARD_DATA": str(self._data),
            "JWT_SECRET": secrets.token_urlsafe(48),
            "BOOTSTRAP_ADMIN_PASSWORD": secrets.token_urlsafe(),
            **{service.port_variable: str(free_port()) for service in SERVICES.values()},
        }

    def command(self, name: str) -> float:
        """Run a subcommand; returns how many seconds it took."""
        begun = time.monotonic()
        command = [sys.executable, "-m", "heartguard.cli.main", name]
        done = subprocess.run(
            command, cwd=ROOT, env=self._environ, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        if done.returncode != 0:
            raise Broken(f"heartguard {name} failed: {(done.stdout + done.stderr).strip()[-500:]}")
        return time.monotonic() - begun

    def processes(self) -> list[int]:
        """The supervisor and all that it runs."""
        supervisor = int((self._data / "supervisord.pid").read_text())
        return [supervisor, *children(supervisor)]


@contextmanager
def stack() -> Iterator[Stack]:
    with folder() as where:
        one = Stack(where)
        try:
            yield one
        finally:
            one.command("down")


def run(context: Context) -> list[Row]:
    with stack() as one:
        context.say("start: the first start, which makes the database")
        first, later = one.command("up"), []
        rounds = context.choose(3, 1)
        for number in range(1, rounds + 1):
            context.say(f"start: again, {number} of {rounds}")
            one.command("down")
            later.append(one.command("up"))
        context.say("start: a demo, and then the memory")
        one.command("demo")
        sizes = [(memory(pid), is_service(pid)) for pid in one.processes()]
    services = [size for size, of_service in sizes if of_service]
    return [
        seconds("first start, makes the database", [first]),
        seconds("start", later),
        megabytes("all services", "Pss", services, MEGABYTES),
        *(megabytes("all processes", measure, [size for size, _ in sizes]) for measure in MEASURES),
    ]


def seconds(what: str, took: list[float]) -> Row:
    return Row(
        benchmark="start", what=what, unit="s", value=round(statistics.median(took), 2),
        target=SECONDS, note="heartguard up, installed already, until all are ready",
    )  # fmt: skip


def megabytes(whose: str, measure: str, sizes: list[dict[str, int]], target: Target | None = None) -> Row:
    return Row(
        benchmark="start", what=f"memory of {whose}, {measure.upper()}", unit="MB",
        value=round(sum(size[measure] for size in sizes) / 1e6, 1), target=target, details={"processes": len(sizes)},
        note=f"after heartguard demo; {MEASURES[measure]}",
    )  # fmt: skip


def is_service(pid: int) -> bool:
    """Whether it is a service rather than a store or the supervisor."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return b"heartguard.serve" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def memory(pid: int) -> dict[str, int]:
    """Bytes, by measure; of a process that has just ended, none."""
    found = dict.fromkeys(MEASURES, 0)
    with suppress(FileNotFoundError, ProcessLookupError):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        for measure in MEASURES:
            line = re.search(rf"^{measure}:\s+(\d+) kB$", rollup, re.MULTILINE)
            found[measure] = int(line[1]) * 1024 if line else 0
    return found
