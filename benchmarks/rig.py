"""What the time-series benchmarks stand on: own stores, a core for each program, CPU time, load."""

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from heartguard.local.files import private_folder
from heartguard.local.postgres import Postgres
from heartguard.local.server import Running, wait_until
from heartguard.migrate import migrate
from heartguard.settings import ROOT
from heartguard.tokens import KeyRing, Tokens

SECRET = "a benchmark needs no secret worth keeping"
SERVICE_CORE, DATABASE_CORE = 0, 1
START_TIMEOUT = 30.0
REQUEST_TIMEOUT = 60.0
ALL_CORES = os.sched_getaffinity(0)


def say(text: str) -> None:
    """Progress, beside the result."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def token(org_id: int = 1) -> str:
    tokens = Tokens(KeyRing.from_secret(SECRET.encode()))
    return tokens.issue(sub="1", role="admin", org_id=org_id, sid="bench", typ="access", seconds=86_400)[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def folder(parent: Path | None = None) -> Iterator[Path]:
    """A folder, gone at the end; ``parent`` where the default one's disk is too small."""
    with tempfile.TemporaryDirectory(prefix="hg-", dir=parent) as name:
        where = Path(name).resolve()
        where.chmod(0o711)
        yield where


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started inside runs on that core only."""
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, ALL_CORES)


def start_postgres(where: Path) -> Running:
    """The embedded PostgreSQL as the product runs it, on its core. Again in the same folder: the same data."""
    where.mkdir(mode=0o711, exist_ok=True)  # run by root, PostgreSQL works as another user, who has to get in
    private_folder(where / "secrets")
    with on_core(DATABASE_CORE):
        return Running(Postgres(where / "postgres", where / "secrets"))


@contextmanager
def postgres(where: Path) -> Iterator[Running]:
    """The same, migrated, and stopped at the end."""
    running = start_postgres(where)
    try:
        migrate(running.store.url, passwords={"timeseries": running.store.password("timeseries")})
        yield running
    finally:
        running.stop()


@contextmanager
def program(command: list[str], url: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` on the services' core until the block ends; begins once ``url`` is answered."""
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}
    with tempfile.TemporaryFile() as output:
        running = subprocess.Popen(
            ["taskset", "-c", str(SERVICE_CORE), *command], cwd=ROOT, env=environ, stdout=output, stderr=output
        )
        try:
            wait_until(lambda: running.poll() is not None or answers(url), f"{url} did not answer", START_TIMEOUT)
            if running.poll() is not None:
                output.seek(0)
                sys.exit(f"{command} ended:\n{output.read().decode(errors='replace')[-2000:]}")
            yield running
        finally:
            running.terminate()
            running.wait(20)


@contextmanager
def service(database_url: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The time-series service as the product runs it."""
    command = [sys.executable, "-m", "heartguard.serve", "timeseries", "--port", str(port)]
    url = f"http://127.0.0.1:{port}/timeseries/ready"
    with program(command, url, JWT_SECRET=SECRET, DATABASE_URL=database_url) as running:
        yield running


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children, those that ended included."""
    total = 0.0
    for task in [pid, *children(pid)]:
        fields = Path(f"/proc/{task}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def children(pid: int) -> list[int]:
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*found, *(grandchild for child in found for grandchild in children(child))]


class Client:
    """One connection to a service."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_TIMEOUT)
        self._headers = {"Authorization": f"Bearer {token()}", "Content-Type": "application/json"}

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        self._connection.request("POST", path, body, self._headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        self._connection.close()


def together(work: list[Callable[[], None]], until: Callable[[], None] = lambda: None) -> None:
    """Run all at once and wait; the first failure is raised."""
    failures: list[BaseException] = []

    def guarded(one: Callable[[], None]) -> None:
        try:
            one()
        except BaseException as failure:  # noqa: BLE001  (raised below)
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(one,), daemon=True) for one in work]
    for thread in threads:
        thread.start()
    until()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def percentile(values: list[float], percent: int) -> float:
    """0 where there are none."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)] if values else 0.0
