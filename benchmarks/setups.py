"""The setups that are compared as to points: InfluxDB alone, and HeartGuard on either store.

All programs share all cores, as they would on one machine.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from heartguard.services import SERVICES

from .context import Broken, Unavailable
from .influxd import ORG, influxd
from .rig import (
    SECRET,
    UNLIMITED,
    Client,
    Database,
    cpu_seconds,
    free_port,
    postgres,
    program,
    service,
    token,
    valkey,
)

ALONE, ON_INFLUX, ON_POSTGRES = "InfluxDB alone", "HeartGuard on InfluxDB", "HeartGuard on PostgreSQL"
BUCKET = "org_1"
"""The default one of the organization that asks."""
QUIET = 0.15
"""Cores that all programs together may use and count as having done what they had put off."""


@dataclass(frozen=True)
class Setup:
    """Programs that take points in and give them out. ``pids`` are theirs, by name."""

    name: str
    port: int
    scheme: str
    token: str
    pids: Mapping[str, int]

    @property
    def is_ours(self) -> bool:
        return self.name != ALONE

    def write(self, bucket: str, precision: str) -> str:
        """What to ask for to write lines. Of ours there is but one bucket."""
        if self.is_ours:
            return f"/timeseries/write?precision={precision}"
        return f"/api/v2/write?org={ORG}&bucket={bucket}&precision={precision}"

    def client(self, content_type: str) -> Client:
        return Client(self.port, self.token, content_type, self.scheme)


@dataclass(frozen=True)
class Stage:
    """What has been started. ``setups`` are in the order in which they take their turns."""

    database: Database
    setups: list[Setup]
    missing: str
    """Why there is no InfluxDB, if there is none."""

    def setup(self, name: str) -> Setup | None:
        return next((setup for setup in self.setups if setup.name == name), None)


@contextmanager
def staged(where: Path) -> Iterator[Stage]:
    """All of it, until the block ends."""
    with ExitStack() as stack:
        influx, missing = None, ""
        try:
            influx = stack.enter_context(influxd(where))
        except Unavailable as problem:
            missing = str(problem)
        database = stack.enter_context(postgres(where, core=None))
        shared, audit = stack.enter_context(_shared(where, database))
        setups = []
        if influx is not None:
            setups.append(Setup(ALONE, influx.port, "Token", influx.token, {"influxd": influx.pid}))
            programs = stack.enter_context(_heartguard(shared, influx.settings))
            setups.append(
                _ours(ON_INFLUX, programs, {"audit": audit, "influxd": influx.pid, "PostgreSQL": database.pid})
            )
        url = database.store.url_for("timeseries")
        programs = stack.enter_context(_heartguard(shared, {"DATABASE_URL": url}))
        setups.append(_ours(ON_POSTGRES, programs, {"audit": audit, "PostgreSQL": database.pid}))
        for setup in setups:
            if setup.is_ours:
                make_bucket(setup)
        yield Stage(database, setups, missing)


@contextmanager
def _shared(where: Path, database: Database) -> Iterator[tuple[dict[str, str], int]]:
    """What every HeartGuard here works with: Valkey, the audit service, and one that stands for all others.

    Its addresses, and the process id of the audit service.
    """
    other, port = free_port(), free_port()
    with ExitStack() as stack:
        store = stack.enter_context(valkey(where, core=None))
        command = [sys.executable, "-m", "benchmarks.upstream", str(other)]
        stack.enter_context(program(command, f"http://127.0.0.1:{other}/", {}, core=None))
        own = {"AUDIT_SIGNING_KEY": SECRET, "DATABASE_URL": database.store.url_for("audit")}
        audit = stack.enter_context(service("audit", port, None, REDIS_URL=store.url, **own))
        urls = {one.url_variable: f"http://127.0.0.1:{other}" for one in SERVICES.values() if one.name != "gateway"}
        urls[SERVICES["audit"].url_variable] = f"http://127.0.0.1:{port}"
        yield {"REDIS_URL": store.url, **urls}, audit.pid


@contextmanager
def _heartguard(shared: Mapping[str, str], store: Mapping[str, str]) -> Iterator[tuple[int, dict[str, int]]]:
    """The port of a gateway whose points lie in that store, and the programs."""
    behind, port = free_port(), free_port()
    with ExitStack() as stack:
        running = stack.enter_context(service("timeseries", behind, None, REDIS_URL=shared["REDIS_URL"], **store))
        leads = {**shared, SERVICES["timeseries"].url_variable: f"http://127.0.0.1:{behind}"}
        limits = {"RATE_LIMIT": UNLIMITED, "AUTH_RATE_LIMIT": UNLIMITED}
        gateway = stack.enter_context(service("gateway", port, None, **leads, **limits))
        yield port, {"gateway": gateway.pid, "service": running.pid}


def _ours(name: str, started: tuple[int, dict[str, int]], store: Mapping[str, int]) -> Setup:
    port, programs = started
    return Setup(name, port, "Bearer", token(), {**programs, **store})


def make_bucket(setup: Setup) -> None:
    """A first write makes the organization's default bucket, and the field."""
    client = setup.client("application/json")
    point = {"measurement": "heart_rate", "fields": {"bpm": 1}}
    status, answer = client.post("/timeseries/write", json.dumps({"points": [point]}).encode())
    client.close()
    if status != 200:
        raise Broken(f"{setup.name}: {status}: {answer[:500]!r}")


def all_cpu_seconds() -> float:
    """Of everything that the benchmark has started, and of itself."""
    return cpu_seconds(os.getpid())


def settle(seconds: float = 15.0) -> None:
    """Wait, for so long at most, until the stores have done what they had put off: it must not be in another's turn."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before, begun = all_cpu_seconds(), time.monotonic()
        time.sleep(1)
        if all_cpu_seconds() - before < QUIET * (time.monotonic() - begun):
            return
