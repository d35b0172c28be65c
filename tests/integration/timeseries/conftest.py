"""The time-series service in this process, on a real PostgreSQL; each test is an organization of its own."""

import itertools
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
from heartguard.tokens import Claims, KeyRing, Tokens
from services.influx.src.app import create_app
from services.influx.src.db import PostgresStore
from services.influx.src.settings import Settings
from services.influx.src.store import Batch, Series
from services.influx.src.timeseries import TimeSeries

SECRET = "a secret of the tests, 32 bytes long"
STORES = {"JWT_SECRET": SECRET, "REDIS_URL": "redis://127.0.0.1:1/0", "TIMESERIES_SWEEP_SECONDS": "86400"}
"""Valkey is away: what is not recorded in the transaction of a change waits in the spool."""
TOKENS = Tokens(KeyRing.from_secret(SECRET.encode()))
Role = str

_organizations = itertools.count(1000)


def claims(org_id: int, role: Role = "admin", user_id: int = 1) -> Claims:
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


@contextmanager
def running(database_url: str) -> Iterator[Flask]:
    """The service; its thread and connections are gone afterwards. It sweeps at its start only, not into tests."""
    with tempfile.TemporaryDirectory() as spool:
        yield from _running({**STORES, "DATABASE_URL": database_url, "AUDIT_SPOOL": spool})


def _running(environ: dict[str, str]) -> Iterator[Flask]:
    app = create_app(load(Settings, environ))
    sweeper = app.extensions["heartguard.sweeper"]
    try:
        yield app
    finally:
        sweeper.stop()
        app.extensions["heartguard.audit"].stop()
        sweeper._sweep.__self__._database.close()


@pytest.fixture(scope="session")
def app(url_for: Callable[[str], str]) -> Iterator[Flask]:
    with running(url_for("timeseries")) as app:
        yield app


@dataclass
class Caller:
    """Somebody signed in, and how he speaks to the service."""

    app: Flask
    org_id: int
    role: Role = "admin"
    user_id: int = 1

    def send(self, method: str, path: str, body: Any = None, **options: Any) -> TestResponse:
        token, _ = TOKENS.issue(
            sub=str(self.user_id), role=self.role, org_id=self.org_id, sid="s", typ="access", seconds=60
        )
        headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
        return self.app.test_client().open(path, method=method, json=body, headers=headers, **options)

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

    def as_user(self, user_id: int, role: Role = "user") -> "Caller":
        return Caller(self.app, self.org_id, role, user_id)


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


@pytest.fixture
def store(database: Database, clock: Clock) -> PostgresStore:
    return PostgresStore(database, clock)


@pytest.fixture
def timeseries(store: PostgresStore, clock: Clock) -> TimeSeries:
    return TimeSeries(store, clock)


def add(batch: Batch, series: Series, time: int, fields: Mapping[str, FieldValue]) -> None:
    """Put one point into a batch."""
    for field, value in fields.items():
        batch.add(series, field, [time], [value])


def details(answer: TestResponse) -> dict[str, str]:
    assert answer.json is not None
    return {detail["path"]: detail["message"] for detail in answer.json["error"].get("details", [])}


def code(answer: TestResponse) -> str:
    assert answer.json is not None
    return str(answer.json["error"]["code"])


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
