"""The whole stack on this machine: started, stopped, looked at."""

import resource
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from importlib import import_module
from pathlib import Path

from ..listening import DATABASE, load_own, port_is_free, server_settings
from ..roles import FOREIGN, ROLES, RolePasswords
from ..services import SERVICES, Service
from ..settings import ROOT, DatabaseSettings, environment, load
from . import dotenv
from .errors import SetupError
from .files import generated_secret, write_private
from .influx import Influx, InfluxSettings
from .layout import Layout
from .postgres import Postgres
from .readiness import HOST, installed_services, is_ready
from .server import Store, TooSlow, tail, wait_until
from .supervisor import Program, State, Supervisor
from .unprivileged import setpriv
from .valkey import Valkey

STORE_TIMEOUT = 120.0
"""Seconds: after a crash PostgreSQL replays its log first."""
READY_TIMEOUT = 60.0
PORT_TIMEOUT = 1.0
"""Seconds that predecessors, told to end, may take to let go of a port."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Status:
    """One program of the stack. What listens on a port also says whether it is ready."""

    name: str
    state: State | None
    port: int | None = None
    ready: bool | None = None

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
        self.services = installed_services()
        self.stores: dict[str, Store] = {}
        if not self._is_set("DATABASE_URL"):
            self.stores["DATABASE_URL"] = Postgres(self.layout.root / "postgres", self.layout.secrets)
        if not self._is_set("REDIS_URL"):
            self.stores["REDIS_URL"] = Valkey(self.layout.root / "valkey", self.layout.secrets)
        if self.environ.get("TIMESERIES_BACKEND") == "influx" and not self._is_set("INFLUX_URL"):
            chosen = load(InfluxSettings, self.environ)
            self.stores["INFLUX_URL"] = Influx(self.layout.root / "influx", self.layout.secrets, chosen)

    @property
    def gateway(self) -> str:
        """The stack's address."""
        return f"http://{HOST}:{self.port(SERVICES['gateway'])}"

    @property
    def admin_email(self) -> str:
        return self.environ.get("BOOTSTRAP_ADMIN_EMAIL") or dotenv.ADMIN_EMAIL

    def port(self, service: Service) -> int:
        return server_settings(service, self.environ).port

    def up(self, report: Report) -> bool:
        """Start what does not run yet and wait until all is ready. False where everything ran already.

        What this call has started it stops again if it fails.
        """
        self.layout.prepare()
        with self.layout.lock():
            states = self.supervisor.states()
            if states and all(row.well for row in self.status()):
                return False
            self._complete_environment()
            if states:
                self._resume(report)
                return True
            try:
                self._launch(report)
            except BaseException:
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
        found = [
            Status(store.name, states.get(store.name), store.port, _answers(store) if store.port else None)
            for store in self.stores.values()
        ]
        for service in self.services:
            port = self.port(service)
            ready = service.name in states and is_ready(service, port)
            found.append(Status(service.name, states.get(service.name), port, ready))
        return found

    def migrate(self) -> None:
        """Bring the database to the newest schema; the embedded one must be running."""
        self.environment_for(DatabaseSettings)
        self._migrate()

    def environment_for(self, settings: type) -> dict[str, str]:
        """What something with these ``settings`` needs to know. The stores it asks for must answer."""
        self._require_stores(item.metadata["name"] for item in fields(settings) if "name" in item.metadata)
        self.layout.prepare()
        self._complete_environment()
        return self.environ

    def environment_of(self, service: Service) -> dict[str, str]:
        """The same for a service, which sees no way into the database but its own."""
        return {**closed(self.environment_for(settings_of(service))), **self._way_in(service)}

    def programs(self) -> list[Program]:
        """All that the supervisor is to keep running."""
        found = [
            Program(store.name, "stores", store.command(), store.folder, store.stop_signal)
            for store in self.stores.values()
        ]
        for service in self.services:
            serve = [sys.executable, "-m", "heartguard.serve", service.name, f"--port={self.port(service)}"]
            command = [*setpriv(when_parent_dies="TERM"), *serve]
            found.append(Program(service.name, "services", command, ROOT, environment=self._way_in(service)))
        return found

    def _launch(self, report: Report) -> None:
        self._wait_for_predecessors()
        if self._influx:
            self._influx.check_program()
        for store in self.stores.values():
            report(f"Preparing {store.name}")
            store.prepare()
        programs = self.programs()
        self.supervisor.launch(programs, supervised(closed(self.environ)))
        self._start(programs, report)

    def _resume(self, report: Report) -> None:
        """Start what is missing from a stack whose supervisor runs."""
        programs = self.programs()
        if not self.supervisor.was_launched_for(programs):
            raise SetupError(
                f"The stack in {self.layout.root} runs with other settings (or another version)."
                " Stop it first (heartguard down), or set HEARTGUARD_DATA to another folder."
            )
        self._start(programs, report)

    def _start(self, programs: list[Program], report: Report) -> None:
        if self.stores:
            report("Starting " + " and ".join(store.name for store in self.stores.values()))
        self._start_group(programs, "stores")
        for store in self.stores.values():
            self._wait_for(store.name, store.answers, STORE_TIMEOUT)
        report("Applying migrations")
        self._migrate()
        report("Starting " + ", ".join(service.name for service in self.services))
        self._start_group(programs, "services")
        for service in self.services:
            self._wait_for(service.name, partial(is_ready, service, self.port(service)), READY_TIMEOUT)

    def _start_group(self, programs: list[Program], group: str) -> None:
        for program in programs:
            if program.group == group:
                self.supervisor.start(program)

    def _wait_for(self, name: str, ready: Callable[[], bool], timeout: float) -> None:
        pids: set[int] = set()

        def check() -> bool:
            if ready():
                return True
            state = self.supervisor.states().get(name)
            pids.update([state.pid] if state and state.pid else ())
            if state is None or state.state in {"BACKOFF", "EXITED", "FATAL"} or len(pids) > 1:
                raise SetupError(f"{name} ended at once. {self._tail(name)}")
            return False

        try:
            wait_until(check, f"{name} was not ready", timeout)
        except TooSlow as error:
            raise SetupError(f"{error}. {self._tail(name)}") from None

    def _tail(self, name: str) -> str:
        log = self.layout.log(name)
        return f"The end of its log ({log}):\n{tail(log)}"

    def _wait_for_predecessors(self) -> None:
        """A supervisor that was killed has told its programs to end; they may be at it still."""
        for store in self.stores.values():
            wait_until(store.is_unused, f"Another {store.name} uses {store.folder}, and did not end")
        ports = [(service.name, self.port(service), service.port_variable) for service in self.services]
        if self._influx:
            ports.append((self._influx.name, self._influx.port, self._influx.port_variable))
        for name, port, variable in ports:
            try:
                wait_until(partial(port_is_free, HOST, port), "The port was not free", PORT_TIMEOUT)
            except TooSlow:
                raise SetupError(
                    f"Port {port}, which {name} is to have, is taken by another program. Stop that,"
                    f" or set {variable} to a free port (in .env or in the environment)."
                ) from None

    def _migrate(self) -> None:
        # Takes half a second to import, which other commands are spared.
        from ..migrate import MigrationError, given_passwords, migrate

        passwords = given_passwords(load(RolePasswords, self.environ))
        if postgres := self._postgres:
            postgres.let_owner_make_roles()
            passwords = {service.name: postgres.password(service.name) for service in self._with_role()}
        try:
            migrate(load(DatabaseSettings, self.environ).database_url, passwords=passwords)
        except MigrationError as error:
            raise SetupError(str(error)) from None

    def _with_role(self) -> list[Service]:
        """The services that work with PostgreSQL."""
        return [service for service in self.services if service.name in ROLES]

    @property
    def _postgres(self) -> Postgres | None:
        """The embedded one."""
        found = self.stores.get("DATABASE_URL")
        return found if isinstance(found, Postgres) else None

    @property
    def _influx(self) -> Influx | None:
        """The one that is started here."""
        found = self.stores.get("INFLUX_URL")
        return found if isinstance(found, Influx) else None

    def _way_in(self, service: Service) -> dict[str, str]:
        """By what a service finds its own way into the database. What is empty here is not read from .env either."""
        file = self.layout.secrets / f"database-url-{service.name}"
        return {"DATABASE_URL": "", "DATABASE_URL_FILE": str(file) if service.name in ROLES else ""}

    def _write_ways_in(self) -> None:
        for service in self._with_role():
            if self._postgres:
                url = self._postgres.url_for(service.name)
            else:
                url = load_own(DatabaseSettings, service, self.environ).database_url
            write_private(Path(self._way_in(service)["DATABASE_URL_FILE"]), url + "\n")

    def _complete_environment(self) -> None:
        """Make missing secrets, add the addresses of stores and services, and check every service's settings."""
        self.environ |= dotenv.complete(self.environ)
        self.environ |= {variable: store.url for variable, store in self.stores.items()}
        if self._influx:
            self.environ |= self._influx.settings
            if not self._is_set("INFLUX_MAX_FILES") and (most := resource.getrlimit(resource.RLIMIT_NOFILE)[1]) > 0:
                self.environ["INFLUX_MAX_FILES"] = str(most)
        for service in self.services:
            if not self._is_set(service.url_variable):
                self.environ[service.url_variable] = f"http://{HOST}:{self.port(service)}"
        self.environ["HEARTGUARD_DATA"] = str(self.layout.root)
        if not self._is_set("JWT_KEYRING_FILE"):
            self.environ["JWT_KEYRING_FILE"] = str(self.layout.keyring)
        if not self._is_set("AUDIT_SPOOL"):
            self.environ["AUDIT_SPOOL"] = str(self.layout.spool)
        if not self._is_set("AUDIT_SIGNING_KEY"):
            generated_secret(self.layout.audit_key)
            self.environ["AUDIT_SIGNING_KEY_FILE"] = str(self.layout.audit_key)
        self._write_ways_in()
        for service in self.services:
            load_own(settings_of(service), service, {**self.environ, **self._way_in(service)})

    def _require_stores(self, variables: Iterable[str]) -> None:
        for store in map(self.stores.get, variables):
            # One that was never made must not be asked: it would make its password.
            if store is not None and (store.is_unused() or not store.answers()):
                raise SetupError(
                    f"{store.name} does not run in {self.layout.root}. Start the stack first: heartguard up"
                )

    def _is_set(self, variable: str) -> bool:
        return bool(self.environ.get(variable) or self.environ.get(f"{variable}_FILE"))


def _answers(store: Store) -> bool:
    try:
        return not store.is_unused() and store.answers()
    except SetupError:
        return False


def supervised(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` for programs that are started again and again, and stay.

    What Python has compiled it keeps, else each start would take seconds longer. Threads share two of the C
    library's memory arenas, instead of holding on to the free memory of eight for each processor.
    """
    kept = {name: value for name, value in environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {"MALLOC_ARENA_MAX": "2", **kept}


def closed(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` without any way into the database. What is left empty is not read from .env either."""
    return {name: "" if name in DATABASE or FOREIGN.match(name) else value for name, value in environ.items()}


def settings_of(service: Service) -> type:
    """The service's own class of settings."""
    found: type = import_module(f"{service.package}.settings").Settings
    return found
