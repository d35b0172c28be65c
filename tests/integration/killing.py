"""A service and its PostgreSQL as the product runs them, in processes of their own that tests kill."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from heartguard.local.errors import SetupError
from heartguard.local.files import private_folder
from heartguard.local.postgres import Postgres
from heartguard.local.readiness import is_ready
from heartguard.local.server import Running, wait_until
from heartguard.migrate import migrate
from heartguard.services import SERVICES
from heartguard.settings import ROOT


def kill(pid: int) -> None:
    """The process and its children: none gets to do anything more."""
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    for one in [*children, pid]:
        with suppress(ProcessLookupError):  # a worker of PostgreSQL's that has just ended
            os.kill(one, signal.SIGKILL)


class Site:
    """A durable PostgreSQL and the service."""

    def __init__(self, folder: Path, service: str, port: int, environ: dict[str, str]) -> None:
        self.port = port
        self._of = SERVICES[service]
        self._environ = environ
        self._store = Postgres(folder / "postgres", private_folder(folder / "secrets"))
        self._postgres = Running(self._store)
        migrate(self._store.url, passwords={service: self._store.password(service)})
        self._service = self._start()
        self._wait()

    @property
    def database_url(self) -> str:
        """The service's own."""
        return self._store.url_for(self._of.name)

    def kill_service(self) -> None:
        kill(self._service.pid)
        self._service.wait(10)
        self._service = self._start()
        self._wait()

    def kill_postgres(self) -> None:
        kill(self._postgres.pid)
        self._postgres.kill()
        wait_until(self._restart, "PostgreSQL did not come back", 20)
        self._wait()

    def stop(self) -> None:
        self._service.terminate()
        self._service.wait(20)
        self._postgres.stop()

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "heartguard.serve", self._of.name, "--port", str(self.port)]
        environ = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": self.database_url,
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "AUDIT_SPOOL": str(self._store.folder.parent / "spool"),
            **self._environ,
        }
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=quiet, stderr=quiet)

    def _restart(self) -> bool:
        """As the supervisor does it: again, where a process of the killed server has not quite ended yet."""
        try:
            self._postgres = Running(self._store)
        except SetupError:
            return False
        return True

    def _wait(self) -> None:
        wait_until(lambda: is_ready(self._of, self.port), f"{self._of.name} did not come back", 20)
