"""The pool of connections: what it trusts, what it replaces; and single statements."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from heartguard import database as kit
from heartguard.database import Database
from heartguard.local.postgres import Postgres


@pytest.fixture
def database(url_for: Callable[[str], str]) -> Iterator[Database]:
    made = Database(url_for("timeseries"), service="tests", pool_size=1)
    yield made
    made.close()


@pytest.fixture
def pings(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry for each ping."""
    seen: list[object] = []
    ping = database.engine.dialect.do_ping

    def noted(connection: object) -> bool:
        seen.append(connection)
        return ping(connection)  # type: ignore[arg-type]

    monkeypatch.setattr(database.engine.dialect, "do_ping", noted)
    return seen


def backend(database: Database) -> int:
    with database.autocommit() as connection:
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_what_answered_just_now_is_used_again_without_a_ping(database: Database, pings: list[object]) -> None:
    pids = {backend(database) for _ in range(5)}
    with database.transaction() as connection:
        pids.add(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
    assert len(pids) == 1
    assert pings == []


def test_what_was_idle_is_pinged(database: Database, pings: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    pid = backend(database)
    monkeypatch.setattr(kit, "TRUSTED_FOR", 0.0)
    assert backend(database) == pid
    assert len(pings) == 1


@pytest.mark.parametrize("trusted_for", [0.0, 60.0])
def test_a_connection_that_the_server_closed_is_replaced_unnoticed(
    database: Database, postgres_store: Postgres, monkeypatch: pytest.MonkeyPatch, trusted_for: float
) -> None:
    monkeypatch.setattr(kit, "TRUSTED_FOR", trusted_for)
    with psycopg.connect(postgres_store.superuser_url, autocommit=True) as admin:
        for _ in range(3):
            pid = backend(database)
            assert admin.execute("SELECT pg_terminate_backend(%s, 10000)", [pid]).fetchone() == (True,)
            with database.transaction() as connection:
                assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != pid


def test_a_statement_is_committed_by_itself_and_a_transaction_as_a_whole(database: Database) -> None:
    def insert_twice(unit: Callable[[], AbstractContextManager[Connection]]) -> None:
        with unit() as connection:
            for _ in range(2):
                connection.execute(text("INSERT INTO kept VALUES (1)"))

    with database.autocommit() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE kept (value integer PRIMARY KEY)"))
    for unit, kept in ((database.transaction, []), (database.autocommit, [1])):
        with pytest.raises(IntegrityError):
            insert_twice(unit)
        with database.autocommit() as connection:
            assert connection.execute(text("SELECT value FROM kept")).scalars().all() == kept
