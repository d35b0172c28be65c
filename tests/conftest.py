"""Real servers for the tests: a private PostgreSQL and Valkey for each run (each worker, with pytest-xdist)."""

import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, NullPool, create_engine, make_url

from heartguard.local.files import private_folder
from heartguard.local.postgres import Postgres
from heartguard.local.server import Running
from heartguard.local.valkey import Valkey
from heartguard.migrate import migrate
from heartguard.roles import ROLES


@pytest.fixture(scope="session")
def stores_folder() -> Iterator[Path]:
    """Where the session's servers keep their data."""
    with temporary_folder() as folder:
        private_folder(folder / "secrets")
        yield folder


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a path short enough for sockets, which those of ``tmp_path`` are not; gone at the end."""
    with temporary_folder() as folder:
        yield folder


@contextmanager
def temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hg-")).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_store(stores_folder: Path) -> Iterator[Postgres]:
    """A fresh, migrated database. It does not fsync: no test that takes this fixture is about durability."""
    postgres = Postgres(stores_folder / "postgres", stores_folder / "secrets", durable=False)
    running = Running(postgres)
    try:
        migrate(postgres.url, passwords={service: postgres.password(service) for service in ROLES})
        yield postgres
    finally:
        running.stop()


@pytest.fixture(scope="session")
def database_url(postgres_store: Postgres) -> str:
    """Its owner's, with which no service starts."""
    return postgres_store.url


@pytest.fixture(scope="session")
def url_for(postgres_store: Postgres) -> Callable[[str], str]:
    """A service's own: ``url_for("auth")``."""
    return postgres_store.url_for


class Superuser:
    """Sees and changes everything, as no service may: for tests to arrange, and to look."""

    def __init__(self, url: str) -> None:
        self.engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), poolclass=NullPool)

    def transaction(self) -> AbstractContextManager[Connection]:
        return self.engine.begin()


@pytest.fixture(scope="session")
def superuser(postgres_store: Postgres) -> Superuser:
    return Superuser(postgres_store.superuser_url)


@pytest.fixture(scope="session")
def valkey_url(stores_folder: Path) -> Iterator[str]:
    valkey = Valkey(stores_folder / "valkey", stores_folder / "secrets")
    running = Running(valkey)
    try:
        yield valkey.url
    finally:
        running.stop()


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Gives TCP ports that nobody listens on, each only once."""
    given: set[int] = set()

    def find() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            if port not in given:
                given.add(port)
                return port

    return find
