"""What the benchmarks stand on: own stores, a core for each program, CPU time, load."""

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import redis
from dotenv import dotenv_values

from heartguard.local.files import private_folder
from heartguard.local.postgres import Postgres
from heartguard.local.server import Running, TooSlow, wait_until
from heartguard.local.stack import supervised
from heartguard.local.unprivileged import setpriv
from heartguard.local.valkey import Valkey
from heartguard.migrate import migrate
from heartguard.roles import ROLES
from heartguard.services import SERVICES
from heartguard.settings import ROOT
from heartguard.tokens import KeyRing, Tokens
from heartguard.valkey import REVOCATIONS_COMPLETE

from .context import Broken, Unavailable

SECRET = "a benchmark needs no secret worth keeping"
UNLIMITED = "1000000/s"
ALL_CORES = os.sched_getaffinity(0)
SERVICE_CORE, OTHER_CORE = min(ALL_CORES), max(ALL_CORES)
"""What is measured has the first one for itself, where nothing else of the benchmark runs."""
START_TIMEOUT = 30.0
STOP_TIMEOUT = 20.0
REQUEST_TIMEOUT = 60.0


def two_cores() -> None:
    if len(ALL_CORES) < 2:
        raise Unavailable("needs two cores: one for the program that is measured, one for all the rest")


def token(org_id: int = 1) -> str:
    tokens = Tokens(KeyRing.from_secret(SECRET.encode()))
    return tokens.issue(sub="1", role="admin", org_id=org_id, sid="bench", typ="access", seconds=86_400)[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


NO_VALKEY = "redis://127.0.0.1:1/0"
"""For services that can do without."""


@contextmanager
def folder() -> Iterator[Path]:
    """A folder where temporary files go (``TMPDIR``), gone at the end."""
    with tempfile.TemporaryDirectory(prefix="hg-") as name:
        where = Path(name).resolve()
        where.chmod(0o711)  # run by root, PostgreSQL works as another user, who has to get in
        yield where


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What is started inside runs on that core only; on any with None."""
    os.sched_setaffinity(0, ALL_CORES if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, ALL_CORES)


@dataclass(frozen=True)
class Database:
    """The embedded PostgreSQL that runs, and its process."""

    store: Postgres
    pid: int


@contextmanager
def postgres(where: Path, *, core: int | None = OTHER_CORE) -> Iterator[Database]:
    """PostgreSQL as the product runs it, migrated, and stopped at the end."""
    where.mkdir(mode=0o711, exist_ok=True)
    private_folder(where / "secrets")
    store = Postgres(where / "postgres", where / "secrets")
    with on_core(core):
        running = Running(store)
    try:
        migrate(store.url, passwords={service: store.password(service) for service in ROLES})
        yield Database(store, running.pid)
    finally:
        running.stop()


@contextmanager
def valkey(where: Path, *, core: int | None = OTHER_CORE) -> Iterator[Valkey]:
    """The embedded Valkey, its list of revocations marked complete."""
    where.mkdir(mode=0o711, exist_ok=True)
    private_folder(where / "secrets")
    store = Valkey(where / "valkey", where / "secrets")
    with on_core(core):
        running = Running(store)
    try:
        with redis.Redis.from_url(store.url) as client:
            client.set(REVOCATIONS_COMPLETE, client.info("server")["run_id"])
        yield store
    finally:
        running.stop()


@contextmanager
def program(
    command: list[str], url: str, variables: Mapping[str, str], *, core: int | None = SERVICE_CORE, cwd: Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` on one core until the block ends; begins once ``url`` is answered in any way.

    It gets no more of the environment than it needs, nothing of ``.env``, and ends with this process in any case.
    """
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}
    with tempfile.TemporaryFile() as output:
        with on_core(core):
            running = subprocess.Popen(
                [*setpriv(when_parent_dies="TERM"), *command],
                cwd=cwd, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        try:
            await_answer(url, running, output)
            yield running
        except Exception as failure:
            if running.poll() is not None:  # which explains it
                raise Broken(f"the program ended: {tail(output)}") from failure
            raise
        finally:
            stop(running)


def await_answer(url: str, running: subprocess.Popen[bytes], output: IO[bytes]) -> None:
    """Raises :class:`Broken` with what the program has said, where it ends or does not answer in time."""
    with suppress(TooSlow):
        wait_until(lambda: running.poll() is not None or status_of(url) is not None, "", START_TIMEOUT)
    if running.poll() is not None or status_of(url) is None:
        did = "did not answer" if running.poll() is None else "ended"
        raise Broken(f"the program {did}: {tail(output)}")


def tail(output: IO[bytes]) -> str:
    """The last that a program has said."""
    output.seek(0)
    return output.read().decode(errors="replace").strip()[-500:]


def stop(running: subprocess.Popen[bytes]) -> None:
    running.terminate()
    try:
        running.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait(STOP_TIMEOUT)


def clean_settings() -> dict[str, str]:
    """What switches the settings in ``.env`` off: a variable that is empty counts as not set."""
    return dict.fromkeys(dotenv_values(ROOT / ".env", interpolate=False), "")


@contextmanager
def service(
    name: str, port: int, core: int | None = SERVICE_CORE, /, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A service as the supervisor of the product runs it."""
    path = SERVICES[name].path
    command = [sys.executable, "-m", "heartguard.serve", name, f"--port={port}"]
    stores = {"REDIS_URL": NO_VALKEY, **variables}
    with folder() as spool:
        environ = {**clean_settings(), "JWT_SECRET": SECRET, "AUDIT_SPOOL": str(spool), **stores}
        with program(command, f"http://127.0.0.1:{port}{path}/health", supervised(environ), core=core) as running:
            wait_until(lambda: status_of(f"http://127.0.0.1:{port}{path}/ready") == 200, f"{name} was not ready")
            yield running


def status_of(url: str) -> int | None:
    """The status of the answer; None without one."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code
    except (OSError, http.client.HTTPException):
        return None


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children, those that ended included."""
    total = 0.0
    for task in [pid, *children(pid)]:
        with suppress(FileNotFoundError):  # ended just now
            fields = Path(f"/proc/{task}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def children(pid: int) -> list[int]:
    """Of any depth."""
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):
        found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*found, *(grandchild for child in found for grandchild in children(child))]


class Client:
    """One connection to a service."""

    def __init__(
        self, port: int, token: str | None = None, content_type: str = "application/json", scheme: str = "Bearer"
    ) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_TIMEOUT)
        self._headers = {"Content-Type": content_type}
        if token:
            self._headers["Authorization"] = f"{scheme} {token}"

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        self._connection.request("POST", path, body, self._headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        self._connection.close()


def together(work: list[Callable[[], None]]) -> None:
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
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def percentile(values: list[float], percent: int) -> float:
    """0 where there are none."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)] if values else 0.0
