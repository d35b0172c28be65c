"""A PostgreSQL that is stopped where it stands: it takes connections and statements, and answers none."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import QueuePool, text

from heartguard import database as kit
from heartguard import migrate as migrations
from heartguard.database import Database
from heartguard.errors import Unavailable
from heartguard.local.files import private_folder
from heartguard.local.postgres import Postgres
from heartguard.local.server import Running, wait_until
from heartguard.migrate import MigrationError, migrate

upgrade = migrations.command.upgrade

SOON = 2.0
"""Seconds beyond a limit that a busy machine may take."""


@pytest.fixture(scope="module")
def server(stores_folder: Path) -> Iterator[Running]:
    """A server of its own, for it is stopped."""
    folder = private_folder(stores_folder / "hung")
    store = Postgres(folder / "postgres", private_folder(folder / "secrets"), durable=False)
    running = Running(store)
    try:
        migrate(store.url, passwords={"timeseries": store.password("timeseries")})
        yield running
    finally:
        running.stop()


@pytest.fixture
def database(server: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setattr(kit.Patient, "patience", 1.0)
    monkeypatch.setattr(kit, "PING_TIMEOUT", 1.0)
    monkeypatch.setattr(kit, "POOL_TIMEOUT", 1)
    monkeypatch.setattr(kit, "CONNECT_TIMEOUT", 2)  # the least that libpq has
    monkeypatch.setattr(kit, "ANSWER_TIMEOUT", 2.0)
    store: Any = server.store
    made = Database(store.url_for("timeseries"), service="hung", pool_size=2)
    made.check()
    yield made
    made.close()


def processes(server: Running) -> list[int]:
    """The server and its children; the server first, lest it start more."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return [server.pid, *map(int, children)]


@contextmanager
def stopped(server: Running) -> Iterator[None]:
    found = processes(server)
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in found:
            os.kill(pid, signal.SIGCONT)


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes until the database is said to be unavailable."""
    begun = time.monotonic()
    with pytest.raises(Unavailable):
        work()
    return time.monotonic() - begun


def recover(database: Database) -> None:
    """Ask until it answers, for as long as it may not be asked after it was silent."""

    def answers() -> bool:
        try:
            database.check()
        except Unavailable:
            return False
        return True

    wait_until(answers, "The database did not recover", kit.RETRY_AFTER + SOON)


def test_the_limits_are_in_order() -> None:
    """A statement's own limit comes first, so that the server says what was slow; the gateway's comes last."""
    assert kit.STATEMENT_TIMEOUT_MS / 1000 < kit.ANSWER_TIMEOUT < 20
    assert kit.PING_TIMEOUT + kit.CONNECT_TIMEOUT < 5
    assert kit.DOUBT_AFTER + kit.PULSE_TIMEOUT < 5
    assert kit.Patient.patience == kit.PING_TIMEOUT
    assert max(migrations.WAIT_MS, migrations.STATEMENT_TIMEOUT_MS) / 1000 < migrations.ANSWER_TIMEOUT


def test_a_stopped_server_is_unavailable_soon_and_the_pool_recovers(server: Running, database: Database) -> None:
    with stopped(server):
        assert seconds(database.check) < 1 + kit.CONNECT_TIMEOUT + SOON
        with ThreadPoolExecutor(6) as threads:
            waits = list(threads.map(lambda _: seconds(database.check), range(6)))
        assert max(waits) < kit.POOL_TIMEOUT + 1 + kit.CONNECT_TIMEOUT + SOON
    recover(database)
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda _: database.check(), range(6)))
    assert isinstance(database.engine.pool, QueuePool)
    assert database.engine.pool.checkedout() == 0


def test_while_one_finds_out_the_others_do_not_wait(server: Running, database: Database) -> None:
    """They would take all threads of a service, and it could not even say that it lives."""
    database.check()
    with stopped(server):
        time.sleep(kit.TRUSTED_FOR)
        seconds(database.check)
        time.sleep(kit.RETRY_AFTER)
        with ThreadPoolExecutor(6) as threads:
            asked = [threads.submit(seconds, database.check) for _ in range(6)]
            done = wait(asked, kit.CONNECT_TIMEOUT / 2).done
            assert len(done) == 5
    recover(database)


def test_a_server_stopped_at_work_is_given_up(server: Running, database: Database) -> None:
    def work() -> None:
        with database.transaction() as connection, stopped(server):
            connection.execute(text("SELECT 2"))

    assert 1.5 < seconds(work) < 2 + SOON
    recover(database)


def test_who_waits_for_a_server_that_hangs_gives_up_long_before_a_slow_statement_must(
    server: Running, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit, "ANSWER_TIMEOUT", 17.0)

    def work() -> None:
        with database.transaction() as connection:
            connection.execute(text("SELECT 1"))
            halted.wait(5)
            connection.execute(text("SELECT 2"))

    with ThreadPoolExecutor(2) as threads:  # as many as there are connections
        halted = threading.Barrier(3)
        asked = [threads.submit(seconds, work) for _ in range(2)]
        wait_until(lambda: halted.n_waiting == 2, "they did not begin", 5)
        with stopped(server):
            halted.wait(5)
            waits = [one.result() for one in asked]
    assert max(waits) < kit.DOUBT_AFTER + kit.PULSE_TIMEOUT + SOON
    recover(database)


def test_a_slow_statement_is_waited_for_while_the_server_answers_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit, "ANSWER_TIMEOUT", 17.0)
    monkeypatch.setattr(kit, "DOUBT_AFTER", 0.3)
    monkeypatch.setattr(kit, "RETRY_AFTER", 0.2)
    with database.transaction() as connection:
        assert connection.execute(text("SELECT 1 FROM pg_sleep(2.5)")).scalar_one() == 1


def test_a_server_stopped_before_the_commit_is_given_up(server: Running, database: Database) -> None:
    def work() -> None:
        with database.transaction() as connection:
            connection.execute(text("SELECT 2"))
            halt.enter_context(stopped(server))

    with ExitStack() as halt:
        assert seconds(work) < 2 + SOON
    recover(database)


def test_a_server_stopped_while_it_takes_a_copy_is_given_up(server: Running, database: Database) -> None:
    """More than any buffer holds, so that sending has to wait."""

    def work() -> None:
        with database.transaction() as connection:
            connection.execute(text("CREATE TEMPORARY TABLE hung (line text) ON COMMIT DROP"))
            driver: Any = connection.connection.driver_connection
            with driver.cursor() as cursor, cursor.copy("COPY hung FROM STDIN") as stream, stopped(server):
                for _ in range(200):
                    stream.write(b"x" * 100_000 + b"\\n")

    assert seconds(work) < 2 + SOON
    recover(database)


def test_a_migration_gives_a_hung_database_up(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(server.store.url)
    monkeypatch.setattr(migrations, "ANSWER_TIMEOUT", 1.0)
    monkeypatch.setattr(kit.Patient, "patience", 1.0)

    def hang(*_: object) -> None:
        halt.enter_context(stopped(server))

    with ExitStack() as halt:
        monkeypatch.setattr(migrations.command, "upgrade", lambda *given: (hang(), upgrade(*given)))
        with pytest.raises(MigrationError, match="did not answer in time"):
            migrate(server.store.url)
    monkeypatch.undo()
    migrate(server.store.url)


def test_slow_is_not_hung(database: Database) -> None:
    """Outside the limit for questions, inside that for work."""
    with database.transaction() as connection:
        assert connection.execute(text("SELECT 1 FROM pg_sleep(1.3)")).scalar_one() == 1
