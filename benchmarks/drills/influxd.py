"""The InfluxDB of the drill's stack, which the supervisor runs: killed, stopped, measured."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import urllib3
from urllib3.exceptions import HTTPError

from heartguard.local.errors import SetupError
from heartguard.local.influx import NAME as ORG
from heartguard.local.influx import Influx
from heartguard.local.influx_program import find
from heartguard.local.server import wait_until
from heartguard.local.stack import Stack

from ..context import Broken, Unavailable

START_SECONDS = 120.0
"""After a kill it reads its log first."""
STOP_SECONDS = 60.0


def require() -> None:
    """Raises :class:`Unavailable` where there is no influxd."""
    try:
        find(os.environ.get("INFLUXD"))
    except SetupError as problem:
        raise Unavailable(str(problem)) from None


class Influxd:
    """The server of a stack; the supervisor starts it again whenever it ends."""

    def __init__(self, stack: Stack) -> None:
        store = stack.stores["INFLUX_URL"]
        assert isinstance(store, Influx)
        self._stack = stack
        self._log = stack.layout.log(store.name)
        self._name = store.name
        self.url = store.url
        self.token = Path(stack.environ["INFLUX_TOKEN_FILE"]).read_text().strip()
        self._http = urllib3.PoolManager(retries=False, timeout=20)

    @property
    def pid(self) -> int:
        """0 where it does not run just now."""
        state = self._stack.supervisor.states().get(self._name)
        return state.pid if state else 0

    def kill(self) -> None:
        os.kill(self._running(), signal.SIGKILL)

    def restart(self) -> tuple[float, float]:
        """Tell it to end, and wait until it is healthy again: after how many seconds it had ended, and was."""
        pid, begun = self._running(), time.monotonic()
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "influxd did not end", STOP_SECONDS)
        stopped = time.monotonic()
        wait_until(self._is_healthy, "influxd was not healthy", START_SECONDS)
        return stopped - begun, time.monotonic() - stopped

    @contextmanager
    def hung(self) -> Iterator[None]:
        """It gets no processor time until the block ends."""
        pid = self._running()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def _running(self) -> int:
        if not (pid := self.pid):
            raise Broken(f"influxd does not run: {self.said()}")
        return pid

    def _is_healthy(self) -> bool:
        try:
            return self._http.request("GET", f"{self.url}/health", timeout=2).status == 200
        except HTTPError:
            return False

    def said(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace").strip()[-1500:]

    def buckets(self) -> list[str]:
        """The names of all buckets, its own left out."""
        names: list[str] = []
        while True:
            asked = {"org": ORG, "limit": "100", "offset": str(len(names))}
            headers = {"Authorization": f"Token {self.token}"}
            answer = self._http.request("GET", f"{self.url}/api/v2/buckets", fields=asked, headers=headers)
            found = [bucket["name"] for bucket in answer.json()["buckets"]]
            names += found
            if len(found) < 100:
                return [name for name in names if not name.startswith("_")]


@dataclass
class Use:
    """What a process takes of the machine."""

    files: int = 0
    megabytes: int = 0


def use_of(pid: int) -> Use:
    """Zeroes where it has ended."""
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        resident = re.search(r"VmRSS:\s+(\d+) kB", status)
        return Use(len(list(Path(f"/proc/{pid}/fd").iterdir())), int(resident[1]) // 1024 if resident else 0)
    return Use()


class Uses:
    """What the server takes at several moments, and at most while it is watched."""

    def __init__(self, influxd: Influxd) -> None:
        self._influxd = influxd
        self.pid = influxd.pid
        self.most = Use()
        self.at: dict[str, Use] = {}
        self.note("before")
        limits = Path(f"/proc/{self.pid}/limits").read_text()
        found = re.search(r"Max open files\s+(\d+)", limits)
        assert found
        self.most_files = int(found[1])
        """How many it may open."""

    @property
    def same_process(self) -> bool:
        """Whether it has not ended since."""
        return self._influxd.pid == self.pid

    def note(self, moment: str) -> None:
        self.at[moment] = self.look()

    def look(self) -> Use:
        now = use_of(self._influxd.pid)
        self.most = Use(max(self.most.files, now.files), max(self.most.megabytes, now.megabytes))
        return now


@contextmanager
def watched(uses: Uses) -> Iterator[None]:
    """Look twice a second while the block runs."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            uses.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
