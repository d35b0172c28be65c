"""The media service in this process, on a real PostgreSQL and a real store; each test is an organization of its own."""

import itertools
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from heartguard.database import Database
from heartguard.settings import load
from heartguard.tokens import KeyRing, Tokens
from services.media.src.app import create_app
from services.media.src.settings import Settings

SECRET = "a secret of the tests, 32 bytes long"
TOKENS = Tokens(KeyRing.from_secret(SECRET.encode()))
PNG = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==")

_organizations = itertools.count(2000)


@contextmanager
def running(environ: dict[str, str]) -> Iterator[Flask]:
    """The service; its thread and connections are gone afterwards. It sweeps at its start only, not into tests."""
    app = create_app(load(Settings, {"JWT_SECRET": SECRET, "MEDIA_SWEEP_SECONDS": "86400", **environ}))
    sweeper = app.extensions["heartguard.sweeper"]
    try:
        yield app
    finally:
        sweeper.stop()
        sweeper._sweep.__self__._database.close()


@pytest.fixture(scope="session")
def local(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    folder = tmp_path_factory.mktemp("media")
    with running({"DATABASE_URL": database_url, "HEARTGUARD_DATA": str(folder)}) as app:
        yield app


@pytest.fixture
def app(local: Flask) -> Flask:
    return local


@dataclass
class Caller:
    """Somebody signed in, and how he speaks to the service."""

    app: Flask
    org_id: int
    role: str = "admin"
    user_id: int = 1

    def send(self, method: str, path: str, body: Any = None, **options: Any) -> TestResponse:
        token, _ = TOKENS.issue(
            sub=str(self.user_id), role=self.role, org_id=self.org_id, sid="s", typ="access", seconds=60
        )
        headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
        return self.app.test_client().open(path, method=method, json=body, headers=headers, **options)

    def upload(self, content: bytes = PNG, file_name: str = "a.png", content_type: str = "image/png") -> TestResponse:
        body = {"file_name": file_name, "content_type": content_type, "data_base64": b64encode(content).decode()}
        return self.send("POST", "/media/upload", body)

    def stored(self, content: bytes = PNG, **options: Any) -> str:
        """The id of a file that was just stored."""
        answer = self.upload(content, **options)
        assert answer.status_code == 201, answer.text
        assert answer.json is not None
        return str(answer.json["id"])

    def items(self, query: str = "") -> list[str]:
        """The ids of what is listed."""
        answer = self.send("GET", f"/media/items{query}")
        assert answer.status_code == 200, answer.text
        assert answer.json is not None
        return [item["id"] for item in answer.json["items"]]

    def link(self, id_: str) -> dict[str, Any]:
        answer = self.send("GET", f"/media/items/{id_}/download")
        assert answer.status_code == 200, answer.text
        assert answer.json is not None
        return dict(answer.json)

    def fetch(self, url: str, method: str = "GET", **headers: str) -> TestResponse:
        """What the link leads to, asked for by nobody."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        with self.app.test_client() as client, client.open(url, method=method, headers=given) as answer:
            _ = answer.data
            return answer

    def as_user(self, user_id: int, role: str = "user") -> "Caller":
        return Caller(self.app, self.org_id, role, user_id)


@pytest.fixture
def org() -> int:
    return next(_organizations)


@pytest.fixture
def admin(app: Flask, org: int) -> Caller:
    return Caller(app, org)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, service="tests")
    yield database
    database.close()
