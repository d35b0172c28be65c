"""The embedded PostgreSQL: made whole, started, crashed, refused."""

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from heartguard.local.errors import SetupError
from heartguard.local.files import private_folder
from heartguard.local.postgres import Postgres
from heartguard.local.server import Running
from heartguard.migrate import MigrationError, migrate

Start = Callable[[], Running]


@pytest.fixture
def postgres(short_folder: Path) -> Postgres:
    return Postgres(short_folder / "postgres", private_folder(short_folder / "secrets"))


@pytest.fixture
def start(postgres: Postgres) -> Iterator[Start]:
    started: list[Running] = []

    def run() -> Running:
        started.append(Running(postgres))
        return started[-1]

    yield run
    for running in started:
        running.stop()


def ask(postgres: Postgres, query: str) -> object:
    with psycopg.connect(postgres.url) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]


def test_what_was_committed_survives_a_crash_and_a_restart(postgres: Postgres, start: Start) -> None:
    first = start()
    with psycopg.connect(postgres.url) as connection:
        connection.execute("CREATE TABLE kept (answer int)")
        connection.execute("INSERT INTO kept VALUES (42)")
    first.kill()
    second = start()
    assert ask(postgres, "SELECT answer FROM kept") == 42
    second.stop()
    start()
    assert ask(postgres, "SELECT answer FROM kept") == 42


def test_migrations_run_without_superpowers_in_a_durable_utf8_database(postgres: Postgres, start: Start) -> None:
    start()
    assert ask(postgres, "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user") is False
    settings = ("fsync", "synchronous_commit", "data_checksums", "server_encoding", "listen_addresses")
    assert [ask(postgres, f"SHOW {name}") for name in settings] == ["on", "on", "on", "UTF8", ""]


def test_nobody_gets_in_without_the_password(postgres: Postgres, start: Start) -> None:
    start()
    for password in ("wrong", ""):
        url = re.sub(":[^:@]+@", f":{password}@", postgres.url)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(url, passfile="/dev/null").close()


def test_the_folders_are_closed_and_those_above_untouched(postgres: Postgres, start: Start) -> None:
    above = postgres.folder.parent
    above.chmod(0o700)
    start()
    assert stat.S_IMODE(above.stat().st_mode) == 0o700
    assert stat.S_IMODE(postgres.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((postgres.folder / ".s.PGSQL.5432").stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (above / "secrets").iterdir()} == {0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_other_processes_of_the_servers_user_see_nothing(postgres: Postgres, start: Start) -> None:
    running = start()
    become = ["setpriv", f"--reuid={postgres.data.stat().st_uid}", "--clear-groups"]
    for command in (
        ["cat", str(postgres.data / "PG_VERSION")],
        ["ls", f"/proc/{running.pid}/cwd/"],
        ["cat", f"/proc/{running.pid}/environ"],
    ):
        assert subprocess.run([*become, *command], capture_output=True, timeout=10).returncode != 0


def test_a_lost_password_is_explained(postgres: Postgres, start: Start) -> None:
    start()
    (postgres.folder.parent / "secrets" / "postgres").write_text("another\n")
    with pytest.raises(SetupError, match="secrets/postgres"):
        postgres.answers()


def test_it_knows_whether_a_server_uses_the_folder(postgres: Postgres, start: Start) -> None:
    assert postgres.is_unused()
    running = start()
    assert not postgres.is_unused()
    running.kill()
    assert postgres.is_unused()
    lock = postgres.data / "postmaster.pid"
    lock.write_text(re.sub("^[0-9]+", str(os.getpid()), lock.read_text()))
    assert postgres.is_unused()  # the number has gone to another program since


def test_an_interrupted_creation_is_begun_anew(postgres: Postgres, start: Start) -> None:
    private_folder(postgres.folder)
    (postgres.folder / "data.new" / "base").mkdir(parents=True)
    start()
    assert ask(postgres, "SELECT 1") == 1
    assert not (postgres.folder / "data.new").exists()


def test_half_a_data_folder_is_refused(postgres: Postgres) -> None:
    private_folder(postgres.folder)
    (postgres.data / "base").mkdir(parents=True)
    with pytest.raises(SetupError, match="incomplete"):
        postgres.prepare()


def test_another_versions_data_folder_is_refused(postgres: Postgres) -> None:
    private_folder(postgres.folder)
    (postgres.data / "global").mkdir(parents=True)
    (postgres.data / "global" / "pg_control").touch()
    (postgres.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(SetupError, match="made by PostgreSQL 9, but the installed one is 1"):
        postgres.prepare()


def test_a_creation_that_fails_says_why_and_leaves_nothing(postgres: Postgres) -> None:
    (postgres.folder.parent / "secrets" / "postgres-superuser").write_text("")
    with pytest.raises(SetupError, match="password file"):
        postgres.prepare()
    assert not postgres.data.exists()


def test_a_server_that_ends_at_once_says_why(postgres: Postgres) -> None:
    postgres.prepare()
    (postgres.data / "postgresql.conf").write_text("nonsense = 1\n")
    with pytest.raises(SetupError, match="nonsense"):
        Running(postgres)


def test_a_path_too_long_for_a_socket_is_refused(short_folder: Path) -> None:
    folder = short_folder / ("x" * 100)
    with pytest.raises(SetupError, match="HEARTGUARD_DATA"):
        Postgres(folder, short_folder).prepare()


def test_a_program_that_is_not_there_is_explained(postgres: Postgres) -> None:
    postgres.prepare()
    shutil.rmtree(postgres.folder)
    with pytest.raises(SetupError, match="Starting postgres failed"):
        Running(Gone(postgres.folder, postgres.folder.parent / "secrets"))


class Gone(Postgres):
    """Its folder vanishes between preparing and starting."""

    def prepare(self) -> None:
        pass


def test_an_owner_from_before_may_make_roles_afterwards(postgres: Postgres, start: Start) -> None:
    start()
    with psycopg.connect(postgres.superuser_url) as connection:
        connection.execute("ALTER ROLE heartguard NOCREATEROLE")
    with pytest.raises(MigrationError, match="Database roles"):
        migrate(postgres.url)
    postgres.let_owner_make_roles()
    postgres.let_owner_make_roles()
    migrate(postgres.url, passwords={"auth": postgres.password("auth")})
    with psycopg.connect(postgres.url_for("auth")) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("heartguard_auth",)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres.url_for("user"))


def test_a_lost_superusers_password_is_explained_where_it_is_needed(postgres: Postgres, start: Start) -> None:
    start()
    with psycopg.connect(postgres.superuser_url) as connection:
        connection.execute("ALTER ROLE heartguard NOCREATEROLE")
    (postgres.folder.parent / "secrets" / "postgres-superuser").write_text("another\n")
    with pytest.raises(SetupError, match="secrets/postgres-superuser"):
        postgres.let_owner_make_roles()
