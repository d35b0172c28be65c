"""The audit service in this process, on real stores; each test is an organization of its own."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from redis import Redis
from werkzeug.test import TestResponse

from heartguard import audit
from heartguard.audit import verify
from heartguard.database import Database
from heartguard.settings import load
from services.audit.src.app import create_app
from services.audit.src.export import Export
from services.audit.src.queries import ExportQuery
from services.audit.src.recorder import Recorder
from services.audit.src.settings import Settings
from services.audit.src.signing import Signer

from .. import callers
from ..callers import SECRET
from ..waiting import wait_until

KEY = "a signing key of the tests, of 32 bytes or more"
SIGNER = Signer(KEY.encode())

_organizations = itertools.count(5000)


def exported(export: Export, org_id: int, **asked: int) -> Iterator[bytes]:
    """The lines that the service would send."""
    return export.lines(org_id, export.extent(org_id, ExportQuery(**asked)))


@pytest.fixture(scope="session")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool")


@pytest.fixture(scope="session")
def environ(url_for: Callable[[str], str], valkey_url: str, spool: Path) -> dict[str, str]:
    return {
        "JWT_SECRET": SECRET,
        "DATABASE_URL": url_for("audit"),
        "REDIS_URL": valkey_url,
        "AUDIT_SIGNING_KEY": KEY,
        "AUDIT_SPOOL": str(spool),
    }


@contextmanager
def running(environ: dict[str, str], **options: Any) -> Iterator[Flask]:
    """The service; its threads and connections are gone afterwards."""
    app = create_app(load(Settings, environ), **options)
    try:
        yield app
    finally:
        app.extensions["heartguard.close"]()


@pytest.fixture(scope="module")
def app(environ: dict[str, str]) -> Iterator[Flask]:
    """For no longer than a module: it would take the events that other services' tests look for."""
    with running(environ) as app:
        yield app


@pytest.fixture
def run_service(environ: dict[str, str]) -> Callable[..., Any]:
    """Another one: ``with run_service(intent_seconds=1) as app``; capital letters are settings."""

    def run(**options: Any) -> Any:
        settings = {name: str(value) for name, value in options.items() if name.isupper()}
        return running({**environ, **settings}, **{name: options[name] for name in options if not name.isupper()})

    return run


@pytest.fixture
def valkey(valkey_url: str) -> Iterator[Redis]:
    with Redis.from_url(valkey_url) as client:
        yield client


@pytest.fixture
def database(environ: dict[str, str]) -> Iterator[Database]:
    """As the service's own role."""
    database = Database(environ["DATABASE_URL"], service="tests")
    yield database
    database.close()


@pytest.fixture
def recorder(database: Database) -> Recorder:
    recorder = Recorder(database, SIGNER)
    recorder.prepare()
    return recorder


@pytest.fixture
def trail(environ: dict[str, str], spool: Path) -> Iterator[audit.Trail]:
    """As another service has it."""
    trail = audit.Trail.open("auth", environ["REDIS_URL"], spool)
    yield trail
    trail.stop()


class Caller(callers.Caller):
    """Somebody signed in, and how he speaks to the service."""

    def post(self, **event: Any) -> TestResponse:
        return self.send("POST", "/audit/events", {"actor": "1", "action": "LOGIN", "service": "auth", **event})

    def page(self, query: str = "") -> dict[str, Any]:
        answer = self.send("GET", f"/audit/events{query}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json or {})

    def events(self, query: str = "?limit=200") -> list[dict[str, Any]]:
        """All of them, the oldest first."""
        found: list[dict[str, Any]] = []
        page = self.page(query)
        found += page["items"]
        while cursor := page.get("next_cursor"):
            page = self.page(f"{query}&cursor={cursor}")
            found += page["items"]
        return found[::-1]

    def verification(self) -> dict[str, Any]:
        answer = self.send("GET", "/audit/verify")
        assert answer.status_code == 200, answer.text
        return dict(answer.json or {})

    def export(self, query: str = "") -> bytes:
        answer = self.send("GET", f"/audit/export{query}")
        assert answer.status_code == 200, answer.text
        return answer.data

    def event(self, action: str = "LOGIN", **options: Any) -> audit.Event:
        """An event of this organization, to be sent."""
        return audit.make(action, str(self.user_id), **{"service": "auth", "org_id": self.org_id, **options})


@pytest.fixture
def admin(app: Flask) -> Caller:
    """The admin of an organization that nobody else uses."""
    return Caller(app, next(_organizations))


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Waits until a condition holds; fails where it does not within 15 seconds."""
    return wait_until


@pytest.fixture
def fill(recorder: Recorder, database: Database) -> Callable[..., None]:
    """Records events in an organization's chain."""

    def record(admin: Caller, count: int, **options: Any) -> None:
        for first in range(0, count, 500):
            numbers = range(first, min(count, first + 500))
            with database.transaction() as tx:
                recorder.append(tx, [admin.event(payload={"n": n}, **options) for n in numbers])

    return record


@pytest.fixture
def check_offline(tmp_path: Path) -> Callable[..., int]:
    """The verifier's exit status for the bytes of one export, or of several parts."""

    def check(*parts: bytes, keys: Sequence[bytes] = (SIGNER.public_key,)) -> int:
        files = []
        for number, part in enumerate(parts):
            file = tmp_path / f"{number}.ndjson"
            file.write_bytes(part)
            files.append(file)
        key_files = [tmp_path / f"{number}.pub" for number in range(len(keys))]
        for file, key in zip(key_files, keys, strict=True):
            file.write_text(key.hex())
        return verify.run(files, key_files)

    return check
