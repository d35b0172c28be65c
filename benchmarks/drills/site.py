"""A whole stack on an InfluxDB of its own, and the people who use it."""

import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from heartguard.local.postgres import Postgres
from heartguard.local.stack import Stack
from heartguard.services import SERVICES

from ..context import Broken
from ..rig import UNLIMITED, children, clean_settings, folder, free_port
from .client import Client
from .influxd import Influxd, require

PASSWORD = "four words of a drill"
DAY = 86_400


@dataclass(frozen=True)
class Person:
    """Somebody who is signed in."""

    user_id: str
    org_id: int
    token: str

    @property
    def bucket(self) -> str:
        """The default one of the organization."""
        return f"org_{self.org_id}"


class Site:
    """The stack that runs, and its InfluxDB."""

    def __init__(self, stack: Stack, settings: dict[str, str]) -> None:
        self.stack = stack
        self.settings = settings
        """The environment of commands that work with it."""
        self.influxd = Influxd(stack)
        self.port = stack.port(SERVICES["gateway"])
        self._names = 0

    @property
    def superuser_url(self) -> str:
        """Of PostgreSQL."""
        store = self.stack.stores["DATABASE_URL"]
        assert isinstance(store, Postgres)
        return store.superuser_url

    def client(self, person: Person | None = None) -> Client:
        return Client(self.port, person.token if person else "")

    def sign_up(self) -> Person:
        """The admin of a new organization."""
        self._names += 1
        return self._register({"organization_name": f"Organization {self._names}"}, None)

    def colleague(self, admin: Person, role: str) -> Person:
        return self._register({"role": role}, admin)

    def _register(self, asked: dict[str, str], by: Person | None) -> Person:
        account = {"email": f"{secrets.token_hex(8)}@example.org", "password": PASSWORD}
        client = self.client(by)
        made = client.post("/auth/register", {**account, **asked}).expect(201).json
        signed_in = client.post("/auth/login", account).expect(200).json
        client.close()
        return Person(str(made["user_id"]), made["org_id"], signed_in["access_token"])

    def service_pid(self, name: str) -> int:
        """0 where it does not run just now."""
        state = self.stack.supervisor.states().get(name)
        return state.pid if state else 0

    def kill_service(self, name: str) -> None:
        """The process and its workers: none gets to do anything more. The supervisor starts it again."""
        pid = self.service_pid(name)
        if not pid:
            raise Broken(f"{name} does not run")
        for one in [*children(pid), pid]:
            os.kill(one, signal.SIGKILL)


def settings(where: Path) -> dict[str, str]:
    """The environment of a stack with free ports, whose gateway limits nothing."""
    return {
        **clean_settings(),
        **{name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH", "TMPDIR") if name in os.environ},
        "HEARTGUARD_DATA": str(where),
        "JWT_SECRET": secrets.token_urlsafe(48),
        "BOOTSTRAP_ADMIN_PASSWORD": secrets.token_urlsafe(),
        "JWT_EXPIRES_IN": "1440",
        "ORG_SIGNUP": "true",
        "TIMESERIES_BACKEND": "influx",
        "INFLUXD": os.environ.get("INFLUXD", ""),
        "INFLUX_PORT": str(free_port()),
        "RATE_LIMIT": UNLIMITED,
        "AUTH_RATE_LIMIT": UNLIMITED,
        **{service.port_variable: str(free_port()) for service in SERVICES.values()},
    }


@contextmanager
def site(say: Callable[[str], None], **variables: str) -> Iterator[Site]:
    """A new stack with an InfluxDB, in a temporary folder, stopped at the end; ``variables`` are further settings."""
    require()
    with folder() as where:
        chosen = {**settings(where / "data"), **variables}
        one = Stack(dict(chosen))
        say("starting the stack")
        try:
            one.up(lambda _: None)
            made = Site(one, chosen)
            try:
                yield made
            except Broken:
                say(f"influxd's log ends: {made.influxd.said()}")
                raise
        finally:
            one.down()
