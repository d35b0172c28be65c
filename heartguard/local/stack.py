"""The whole stack on this machine: started, stopped, looked at."""

import http.client
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from ..listening import port_is_free, server_settings
from ..services import SERVICES, Service
from ..settings import ROOT, environment, load
from . import dotenv
from .errors import SetupError
from .layout import Layout
from .postgres import Postgres
from .server import Store, TooSlow, tail, wait_until
from .supervisor import Program, State, Supervisor
from .unprivileged import setpriv
from .valkey import Valkey

HOST = "127.0.0.1"
STORE_TIMEOUT = 120.0
"""Seconds: after a crash PostgreSQL replays its log first."""
READY_TIMEOUT = 60.0
PORT_TIMEOUT = 1.0
"""Seconds that predecessors, told to end, may take to let go of a port."""

Report = Callable[[str], None]


def services() -> list[Service]:
    """The services that this installation has."""
    return [service for service in SERVICES.values() if find_spec(f"{service.package}.app")]


@dataclass(frozen=True)
class Status:
    """One program of the stack, and the port it has, if any."""

    name: str
    state: State | None
    port: int | None
    ready: bool | None

    @property
    def well(self) -> bool:
        return self.state is not None and self.state.running and self.ready is not False


class Stack:
    """The stack that an environment describes: its data folder, ports and stores.

    A store whose URL is set (``DATABASE_URL``, ``REDIS_URL``) is somebody else's, and not started here.
    """

    def __init__(self, environ: dict[str, str] | None = None) -> None:
        self.environ = environment() if environ is None else environ
        self.layout = Layout.of(self.environ)
        self.supervisor = Supervisor(self.layout)
        self.stores: dict[str, Store] = {}
        secrets = self.layout.secrets
        if not self._is_set("DATABASE_URL"):
            self.stores["DATABASE_URL"] = Postgres(self.layout.root / "postgres", secrets)
        if not self._is_set("REDIS_URL"):
            self.stores["REDIS_URL"] = Valkey(self.layout.root / "valkey", secrets)

    def port(self, service: Service) -> int:
        return server_settings(service, self.environ).port

    @property
    def gateway(self) -> str:
        """The stack's address."""
        return f"http://{HOST}:{self.port(SERVICES['gateway'])}"

    @property
    def admin_email(self) -> str:
        return self.environ.get("BOOTSTRAP_ADMIN_EMAIL") or dotenv.ADMIN_EMAIL

    def up(self, report: Report) -> bool:
        """Start what does not run yet and wait until all is ready. False where everything ran already.

        What this call has started it stops again if it fails.
        """
        self.layout.prepare()
        with self.layout.lock():
            states = self.supervisor.states()
            if states and all(state.running for state in states.values()) and self._all_ready():
                return False
            self._complete_environment()
            try:
                self._start(report, fresh=not states)
            except BaseException:
                if not states:
                    self.supervisor.shut_down()
                raise
            return True

    def down(self) -> bool:
        """Stop the stack; its data stays. False where it did not run."""
        if not self.layout.root.is_dir():
            return False
        with self.layout.lock():
            if not self.supervisor.answers():
                return False
            self.supervisor.shut_down()
            return True

    def status(self) -> list[Status]:
        states = self.supervisor.states()
        found = [Status(store.name, states.get(store.name), None, None) for store in self.stores.values()]
        for service in services():
            port = self.port(service)
            ready = is_ready(service, port) if service.name in states else False
            found.append(Status(service.name, states.get(service.name), port, ready))
        return found

    def migrate(self) -> None:
        """Bring the database to the newest schema; the embedded one must be running."""
        self.service_environment()
        self._migrate()

    def service_environment(self) -> dict[str, str]:
        """What a service of this stack needs to know."""
        self.layout.prepare()
        self._complete_environment()
        return self.environ

    def _start(self, report: Report, *, fresh: bool) -> None:
        programs = self.programs()
        if fresh:
            self._wait_for_predecessors()
            for store in self.stores.values():
                report(f"Preparing {store.name}")
                store.prepare()
            self.supervisor.launch(programs, self.environ)
        report("Starting " + (" and ".join(store.name for store in self.stores.values()) or "with the given stores"))
        self._start_group(programs, "stores")
        for store in self.stores.values():
            self._wait_for(store.name, store.answers, STORE_TIMEOUT)
        report("Applying migrations")
        self._migrate()
        report("Starting " + ", ".join(service.name for service in services()))
        self._start_group(programs, "services")
        for service in services():
            self._wait_for(service.name, lambda s=service: is_ready(s, self.port(s)), READY_TIMEOUT)  # type: ignore[misc]

    def programs(self) -> list[Program]:
        """All that the supervisor is to keep running."""
        found = [
            Program(store.name, "stores", store.command(), store.folder, store.stop_signal)
            for store in self.stores.values()
        ]
        for service in services():
            serve = [sys.executable, "-m", "heartguard.serve", service.name, f"--port={self.port(service)}"]
            command = [*setpriv(when_parent_dies="TERM"), *serve]
            found.append(Program(service.name, "services", command, ROOT))
        return found

    def _migrate(self) -> None:
        from ..migrate import migrate  # takes half a second to import, which other commands are spared

        migrate(self.environ["DATABASE_URL"])

    def _start_group(self, programs: list[Program], group: str) -> None:
        for program in programs:
            if program.group == group:
                self.supervisor.start(program)

    def _wait_for(self, name: str, ready: Callable[[], bool], timeout: float) -> None:
        def check() -> bool:
            if ready():
                return True
            state = self.supervisor.states().get(name)
            if state is None or state.state in {"BACKOFF", "EXITED", "FATAL"}:
                raise SetupError(
                    f"{name} ended at once. The end of its log ({self.layout.log(name)}):\n{self._tail(name)}"
                )
            return False

        try:
            wait_until(check, f"{name} was not ready", timeout)
        except TooSlow as error:
            raise SetupError(f"{error}. The end of its log:\n{self._tail(name)}") from None

    def _tail(self, name: str) -> str:
        return tail(self.layout.log(name))

    def _wait_for_predecessors(self) -> None:
        """A supervisor that was killed has told its programs to end; they may be at it still."""
        for store in self.stores.values():
            wait_until(
                lambda s=store: not s.in_use(),  # type: ignore[misc]
                f"Another {store.name} uses {store.folder}, and did not end",
            )
        for service in services():
            port = self.port(service)
            try:
                wait_until(lambda p=port: port_is_free(HOST, p), "The port was not free", PORT_TIMEOUT)  # type: ignore[misc]
            except TooSlow:
                raise SetupError(
                    f"Port {port}, which {service.name} is to have, is taken by another program. Stop that,"
                    f" or set {service.port_variable} to a free port (in .env or in the environment)."
                ) from None

    def _complete_environment(self) -> None:
        """Make missing secrets, add the addresses of stores and services, and check every service's settings."""
        self.environ |= dotenv.complete(self.environ)
        self._point_to_stores()
        for service in services():
            self.environ.setdefault(service.url_variable, f"http://{HOST}:{self.port(service)}")
        self.environ["HEARTGUARD_DATA"] = str(self.layout.root)
        for service in services():
            load(import_module(f"{service.package}.settings").Settings, self.environ)

    def _point_to_stores(self) -> None:
        for variable, store in self.stores.items():
            self.environ[variable] = store.url

    def _all_ready(self) -> bool:
        return all(is_ready(service, self.port(service)) for service in services())

    def _is_set(self, variable: str) -> bool:
        return bool(self.environ.get(variable) or self.environ.get(f"{variable}_FILE"))


def is_ready(service: Service, port: int) -> bool:
    """Whether the service says that it and all it depends on can work."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", f"{service.path}/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
