"""The time-series service in this process, on each of its stores; each test is an organization of its own.

The stores are a real PostgreSQL and an InfluxDB 2: a real one where there is one, else an imitation (:mod:`.influx`).
The summary says which.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from heartguard.database import Database
from heartguard.models.timeseries import FieldValue
from heartguard.settings import load
from heartguard.tokens import Claims
from services.influx.src.app import create_app
from services.influx.src.db import PostgresStore
from services.influx.src.influx_store import InfluxStore
from services.influx.src.settings import Settings
from services.influx.src.store import Batch, Series
from services.influx.src.stores import open_store
from services.influx.src.times import UNBOUNDED
from services.influx.src.timeseries import TimeSeries

from .. import callers
from ..callers import SECRET
from . import faults, recordings, telegraf
from . import influx as influxes
from .faults import Proxy
from .influx import Influx, Unusable
from .organizations import Organizations, drop_left_overs, drop_named

STORES = {
    "JWT_SECRET": SECRET,
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "TIMESERIES_SWEEP_SECONDS": "86400",
    "TIMESERIES_EARLIEST": "1678-01-01",
}
"""Valkey is away: what is not recorded in the transaction of a change waits in the spool."""
AnyStore = PostgresStore | InfluxStore

try:
    CHOICE = influxes.choose()
except Unusable as problem:
    raise pytest.UsageError(str(problem)) from None

BACKENDS = ["postgres", CHOICE.kind]
postgres_only = pytest.mark.parametrize("backend", ["postgres"], indirect=True)
influx_only = pytest.mark.parametrize("backend", [CHOICE.kind], indirect=True)


def claims(org_id: int, role: str = "admin", user_id: int = 1) -> Claims:
    return msgspec.convert(
        {
            "sub": str(user_id),
            "role": role,
            "org_id": org_id,
            "sid": "s",
            "jti": "j",
            "typ": "access",
            "iat": 0,
            "exp": 1,
        },
        Claims,
    )


@dataclass
class Backend:
    """One of the stores, and the settings with which the service uses it."""

    kind: str
    environ: Mapping[str, str]


@contextmanager
def running(environ: Mapping[str, str]) -> Iterator[Flask]:
    """The service; its thread and connections are gone afterwards. It sweeps at its start only, not into tests."""
    with tempfile.TemporaryDirectory() as spool:
        yield from _running({**STORES, "AUDIT_SPOOL": spool, **environ})


def _running(environ: dict[str, str]) -> Iterator[Flask]:
    app = create_app(load(Settings, environ))
    sweeper = app.extensions["heartguard.sweeper"]
    try:
        yield app
    finally:
        sweeper.stop()
        app.extensions["heartguard.audit"].stop()
        store_of(app).close()


@pytest.fixture(scope="session")
def organizations() -> Organizations:
    return Organizations()


@pytest.fixture(scope="session")
def new_org(organizations: Organizations) -> Callable[[], int]:
    """Gives organizations that nobody else has."""
    return organizations.new


@pytest.fixture(scope="session")
def influx(organizations: Organizations, stores_folder: Path, free_port: Callable[[], int]) -> Iterator[Influx]:
    """The session's InfluxDB. None of this run's buckets is left there at the end."""
    with influxes.serving(CHOICE, stores_folder / "influxdb", free_port) as influx:
        drop_left_overs(influx, organizations)
        yield influx
        drop_named(influx, organizations.names())


@pytest.fixture
def proxy(influx: Influx) -> Iterator[Proxy]:
    """Stands before InfluxDB for a single test."""
    with faults.before(influx.address.url) as proxy:
        yield proxy


def uses_influx(request: pytest.FixtureRequest) -> bool:
    """Whether a test does."""
    callspec = getattr(request.node, "callspec", None)
    chosen = callspec.params.get("backend") if callspec else None
    return chosen == CHOICE.kind or (chosen is None and "influx" in request.fixturenames)


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest, organizations: Organizations) -> Iterator[None]:
    """No bucket of the test's own organizations stays in InfluxDB, where each costs files and memory."""
    if not uses_influx(request):
        yield
        return
    request.node.user_properties.append(("influx", CHOICE.kind))
    influx: Influx = request.getfixturevalue("influx")
    before = organizations.given
    yield
    if organizations.given > before:
        drop_named(influx, organizations.names(before))


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "postgres":
        return Backend(request.param, {"DATABASE_URL": request.getfixturevalue("url_for")("timeseries")})
    return Backend(request.param, request.getfixturevalue("influx").environ())


@pytest.fixture(scope="session")
def app(backend: Backend) -> Iterator[Flask]:
    with running(backend.environ) as app:
        yield app


class Caller(callers.Caller):
    """Somebody signed in, and how he speaks to the service."""

    def write(self, *points: dict[str, Any], **options: Any) -> TestResponse:
        return self.send("POST", "/timeseries/write", {"points": points, **options})

    def lines(self, text: str | bytes, query: str = "", **options: Any) -> TestResponse:
        return self.send(
            "POST", f"/timeseries/write{query}", data=text, content_type="text/plain; charset=utf-8", **options
        )

    def query(self, measurement: str = "m", **options: Any) -> TestResponse:
        asked = {"measurement": measurement, "range_start": "1678-01-01T00:00:00Z", **options}
        return self.send("POST", "/timeseries/query", asked)

    def rows(self, measurement: str = "m", **options: Any) -> list[tuple[Any, ...]]:
        """Time, field and value of everything that a query finds, future included."""
        answer = self.query(measurement, **{"range_stop": "2261-12-31T23:59:59Z", **options})
        assert answer.status_code == 200, answer.text
        assert answer.json is not None
        assert answer.json["count"] == len(answer.json["results"])
        return [(row["time"], row["field"], row["value"]) for row in answer.json["results"]]

    def create(self, name: str, **options: Any) -> TestResponse:
        return self.send("POST", "/timeseries/buckets", {"bucket": name, **options})


@pytest.fixture
def org(new_org: Callable[[], int]) -> int:
    return new_org()


@pytest.fixture
def admin(app: Flask, org: int) -> Caller:
    return Caller(app, org)


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: int

    def __call__(self) -> int:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += int(seconds * 1_000_000_000)


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time_ns())


@pytest.fixture
def database(url_for: Callable[[str], str]) -> Iterator[Database]:
    database = Database(url_for("timeseries"), service="tests")
    yield database
    database.close()


def store_of(app: Flask) -> AnyStore:
    """The one that a service in this process has."""
    store: AnyStore = app.extensions["heartguard.sweeper"]._sweep.__self__
    return store


def new_store(backend: Backend, clock: Callable[[], int] = time.time_ns) -> AnyStore:
    """A store that remembers nothing yet, as in a process of its own; ``clock`` is PostgreSQL's."""
    settings = load(Settings, {**STORES, **backend.environ})
    store = open_store(settings.backend, settings)
    if isinstance(store, PostgresStore):
        store._clock = clock
    return store


@pytest.fixture
def store(backend: Backend, clock: Clock) -> Iterator[AnyStore]:
    store = new_store(backend, clock)
    yield store
    store.close()


@pytest.fixture
def other_store(backend: Backend) -> Iterator[AnyStore]:
    """One that another process has."""
    store = new_store(backend)
    yield store
    store.close()


@pytest.fixture
def timeseries(store: AnyStore, clock: Clock) -> TimeSeries:
    return TimeSeries(store, UNBOUNDED, clock=clock)


def add(batch: Batch, series: Series, time: int, fields: Mapping[str, FieldValue]) -> None:
    """Put one point into a batch."""
    for field, value in fields.items():
        batch.add(series, field, [time], [value])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the tests were run on, how many on a real InfluxDB, and how many recorded answers were compared."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    here = [report for report in reports if "integration/timeseries" in getattr(report, "nodeid", "")]
    if not here:
        return
    known = {report.nodeid: dict(getattr(report, "user_properties", [])) for report in here}
    on_real = sum(one.get("influx") == influxes.REAL for one in known.values())
    played = dict(one["recordings"] for one in known.values() if "recordings" in one)
    line = f"time-series stores: PostgreSQL, {CHOICE}"
    if recordings.folder() is None:
        line += ", recordings not in reach"
    elif played:
        line += f", recordings: {sum(played.values()):,} exchanges"
    if CHOICE.kind == influxes.REAL:
        line += f"; {on_real} tests ran on the real InfluxDB"
    terminalreporter.write_line(line)
    if any("test_timeseries_telegraf" in report.nodeid for report in here):
        said = "the real one" if telegraf.PROGRAM else "its requests only; for the real one set TELEGRAF=path"
        terminalreporter.write_line(f"Telegraf: {said}")
