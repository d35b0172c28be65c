"""The time-series service in this process, on each of its stores; each test is an organization of its own.

The stores are a real PostgreSQL, a small InfluxDB of the tests, and a real one where ``HEARTGUARD_TEST_INFLUX_URL``,
``_TOKEN`` and ``_ORG`` say where it is. The summary says which of them were used.
"""

import itertools
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
from services.influx.src.influx_client import InfluxClient
from services.influx.src.influx_store import InfluxStore
from services.influx.src.settings import Settings
from services.influx.src.store import Batch, Series
from services.influx.src.stores import open_store
from services.influx.src.times import UNBOUNDED
from services.influx.src.timeseries import TimeSeries

from .. import callers
from ..callers import SECRET
from . import fake_influx, telegraf

STORES = {
    "JWT_SECRET": SECRET,
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "TIMESERIES_SWEEP_SECONDS": "86400",
    "TIMESERIES_EARLIEST": "1678-01-01",
}
"""Valkey is away: what is not recorded in the transaction of a change waits in the spool."""
AnyStore = PostgresStore | InfluxStore

TENS_OF_MILLIONS = 42
_organizations = itertools.count(TENS_OF_MILLIONS * 10_000_000 + random.randrange(800_000) * 10)
"""Such that runs on the same InfluxDB do not meet."""


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
        sweeper._sweep.__self__.close()


REAL = {name: os.environ.get(f"HEARTGUARD_TEST_{name}", "") for name in ("INFLUX_URL", "INFLUX_TOKEN", "INFLUX_ORG")}
BACKENDS = ["postgres", "influx-fake", *(["influx-real"] if all(REAL.values()) else [])]
postgres_only = pytest.mark.parametrize("backend", ["postgres"], indirect=True)


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    kind: str = request.param
    if kind == "postgres":
        yield Backend(kind, {"DATABASE_URL": request.getfixturevalue("url_for")("timeseries")})
    elif kind == "influx-fake":
        with fake_influx.serving() as (url, _):
            token, org = fake_influx.TOKEN, fake_influx.ORG
            yield Backend(kind, {"INFLUX_URL": url, "INFLUX_TOKEN": token, "INFLUX_ORG": org})
    else:
        yield Backend(kind, REAL)
        client = InfluxClient(*REAL.values())
        for bucket in list(client.buckets()):
            if re.fullmatch(rf"org_{TENS_OF_MILLIONS}[0-9]{{7}}(_.*)?", bucket["name"]):
                client.drop_bucket(bucket["id"])
        client.close()


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
def org() -> int:
    return next(_organizations)


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
    return TimeSeries(store, UNBOUNDED, 200, clock)


def add(batch: Batch, series: Series, time: int, fields: Mapping[str, FieldValue]) -> None:
    """Put one point into a batch."""
    for field, value in fields.items():
        batch.add(series, field, [time], [value])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which stores the tests of behaviour were run on, and whether Telegraf was there."""
    reports = [report for found in terminalreporter.stats.values() for report in found if hasattr(report, "nodeid")]
    used = [kind for kind in BACKENDS if any(kind in report.nodeid for report in reports)]
    if used:
        real = "" if "influx-real" in used else "; for a real InfluxDB 2 set HEARTGUARD_TEST_INFLUX_URL, _TOKEN, _ORG"
        terminalreporter.write_line(f"time-series stores used: {', '.join(used)}{real}")
    if any("test_timeseries_telegraf" in report.nodeid for report in reports):
        said = "the real one" if telegraf.PROGRAM else "its requests only; for the real one set TELEGRAF=path"
        terminalreporter.write_line(f"Telegraf: {said}")
