"""An InfluxDB 2 of the drill's own, with limits: started, killed, stopped, measured."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import urllib3
from urllib3.exceptions import HTTPError

from heartguard.local.server import wait_until
from heartguard.local.unprivileged import ENVIRONMENT, setpriv

from ..context import Broken, Unavailable
from ..rig import free_port

ORG = "heartguard"
LIMITS = {
    "query-concurrency": 8,
    "query-queue-size": 64,
    "query-memory-bytes": 67_108_864,
    "query-initial-memory-bytes": 1_048_576,
    "query-max-memory-bytes": 268_435_456,
}
GO_MEMORY = "700MiB"
START_SECONDS = 120.0
"""After a kill it reads its log first."""
STOP_SECONDS = 60.0


def find() -> str:
    """The program to use. Raises :class:`Unavailable` where there is none, or where it is no InfluxDB 2."""
    named = os.environ.get("INFLUXD") or "influxd"
    found = shutil.which(named)
    if found is None:
        raise Unavailable("needs InfluxDB 2: set INFLUXD to its influxd, or put that into PATH")
    said = subprocess.run([found, "version"], capture_output=True, text=True, timeout=20, check=False).stdout
    if not re.match(r"InfluxDB v?2\.", said):
        raise Unavailable(f"{found} is no InfluxDB 2: {said.strip()[:100]}")
    return found


class Influxd:
    """One server; ``start`` may be called again after it was stopped or killed. Only the main thread may call it."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = secrets.token_urlsafe(32)
        self._http = urllib3.PoolManager(retries=False, timeout=20)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def settings(self) -> dict[str, str]:
        """What the time-series service needs to know."""
        return {"INFLUX_URL": self.url, "INFLUX_TOKEN": self.token, "INFLUX_ORG": ORG}

    def start(self) -> float:
        """Start it and wait until it is healthy; after how many seconds it was."""
        options = {
            "bolt-path": self._folder / "bolt", "sqlite-path": self._folder / "sqlite",
            "engine-path": self._folder / "engine", "http-bind-address": f"127.0.0.1:{self.port}",
            "log-level": "warn", **LIMITS,
        }  # fmt: skip
        command = [
            *ENVIRONMENT, f"HOME={self._folder}", f"GOMEMLIMIT={GO_MEMORY}", *setpriv(when_parent_dies="TERM"),
            self._program, "--reporting-disabled", "--ui-disabled",
            *(f"--{name}={value}" for name, value in options.items()),
        ]  # fmt: skip
        begun = time.monotonic()
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(self._is_healthy, "influxd was not healthy", START_SECONDS)
        return time.monotonic() - begun

    def set_up(self) -> None:
        wanted = {
            "username": "drill", "password": secrets.token_urlsafe(16), "org": ORG, "bucket": "first",
            "token": self.token,
        }  # fmt: skip
        answer = self._http.request("POST", f"{self.url}/api/v2/setup", json=wanted)
        if answer.status != 201:
            raise Broken(f"influxd could not be set up: {answer.status} {answer.data[:300]!r}")

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _is_healthy(self) -> bool:
        if not self.is_alive():
            raise Broken(f"influxd ended at once: {self.said()}")
        try:
            return self._http.request("GET", f"{self.url}/health", timeout=2).status == 200
        except HTTPError:
            return False

    def said(self) -> str:
        """The end of its log."""
        return (self._folder / "log").read_text(errors="replace").strip()[-1500:]

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self._end()

    def stop(self) -> float:
        """Tell it to end; after how many seconds it had."""
        begun = time.monotonic()
        if self.is_alive():
            os.kill(self.pid, signal.SIGCONT)
            os.kill(self.pid, signal.SIGTERM)
            self._end()
        return time.monotonic() - begun

    def _end(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    @contextmanager
    def hung(self) -> Iterator[None]:
        """It gets no processor time until the block ends."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

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
        self.most = Use()
        self.at: dict[str, Use] = {}
        self.note("before")
        limits = Path(f"/proc/{influxd.pid}/limits").read_text()
        found = re.search(r"Max open files\s+(\d+)", limits)
        assert found
        self.most_files = int(found[1])
        """How many it may open."""

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


@contextmanager
def running(folder: Path) -> Iterator[Influxd]:
    """A new server that keeps everything in ``folder``, stopped at the end."""
    folder.mkdir()
    influxd = Influxd(find(), folder)
    try:
        influxd.start()
        influxd.set_up()
        yield influxd
    finally:
        influxd.stop()
