"""The services' database roles: who is let in, with what, and who is refused."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import pytest
from sqlalchemy import text

from heartguard.database import Database
from heartguard.listening import load_own, own_settings
from heartguard.local.files import private_folder
from heartguard.local.postgres import Postgres
from heartguard.local.server import Running
from heartguard.local.stack import closed
from heartguard.migrate import given_passwords, migrate
from heartguard.roles import ROLES, PowerfulRole, RolePasswords
from heartguard.serve import check_role
from heartguard.services import SERVICES
from heartguard.settings import DatabaseSettings, SettingsError, load

PASSWORD = "a password/with:@ odd characters"


def url_as(url: str, role: str, password: str) -> str:
    """``url`` with another user and password."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{quote(password, safe='')}@{place}"))


def test_each_service_signs_in_as_its_own_role(url_for: Callable[[str], str]) -> None:
    for service, role in ROLES.items():
        with psycopg.connect(url_for(service)) as connection:
            assert connection.execute("SELECT current_user::text, session_user::text").fetchone() == (role, role)


def test_no_role_holds_more_than_its_own(superuser: Any) -> None:
    with superuser.transaction() as tx:
        powers = tx.execute(
            text(
                "SELECT rolname FROM pg_roles WHERE rolname LIKE 'heartguard\\_%'"
                " AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)"
            )
        ).all()
        memberships = tx.execute(
            text(
                "SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member WHERE rolname LIKE 'heartguard\\_%'"
            )
        ).all()
    assert (powers, memberships) == ([], [])


def test_passwords_are_set_and_changed_and_never_shown_to_the_server(short_folder: Path) -> None:
    private_folder(short_folder / "secrets")
    postgres = Postgres(short_folder / "postgres", short_folder / "secrets", durable=False)
    postgres._settings = {**postgres._settings, "log_statement": "all", "log_min_error_statement": "error"}
    running = Running(postgres)
    try:
        migrate(postgres.url, passwords={"auth": PASSWORD})
        as_auth = url_as(postgres.url, "heartguard_auth", PASSWORD)
        psycopg.connect(as_auth).close()
        migrate(postgres.url, passwords={"auth": PASSWORD[::-1]})
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(as_auth)
        psycopg.connect(url_as(postgres.url, "heartguard_auth", PASSWORD[::-1])).close()
        migrate(postgres.url)  # leaves it
        psycopg.connect(url_as(postgres.url, "heartguard_auth", PASSWORD[::-1])).close()
    finally:
        running.stop()
    log = (short_folder / "postgres.log").read_text()
    assert "ALTER ROLE" in log
    assert PASSWORD not in log
    assert PASSWORD[::-1] not in log


def test_roles_made_for_another_database_are_used(postgres_store: Postgres, superuser: Any) -> None:
    with superuser.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE second OWNER heartguard"))
    second = postgres_store.url.replace("/heartguard_core?", "/second?")
    migrate(second, passwords={"user": postgres_store.password("user")})
    with psycopg.connect(postgres_store.url_for("user").replace("/heartguard_core?", "/second?")) as connection:
        assert connection.execute("SELECT count(id) FROM heartguard_core.users").fetchone() == (0,)


def test_a_stranger_is_not_let_into_the_database(postgres_store: Postgres, superuser: Any) -> None:
    with superuser.transaction() as tx:
        tx.execute(text("CREATE ROLE stranger LOGIN PASSWORD 'stranger'"))
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(url_as(postgres_store.url, "stranger", "stranger"))


@pytest.mark.parametrize("who", ["owner", "superuser", "bypasses", "may become the owner"])
def test_a_role_that_nothing_holds_back_is_refused(
    postgres_store: Postgres, superuser: Any, who: str, capfd: pytest.CaptureFixture[str]
) -> None:
    url = {"owner": postgres_store.url, "superuser": postgres_store.superuser_url}.get(who)
    if url is None:
        how = "BYPASSRLS" if who == "bypasses" else "IN ROLE heartguard"
        with superuser.transaction() as tx:
            tx.execute(text("DROP ROLE IF EXISTS mighty"))
            tx.execute(text(f"CREATE ROLE mighty LOGIN PASSWORD 'mighty' {how}"))
            tx.execute(text("GRANT CONNECT ON DATABASE heartguard_core TO mighty"))
        url = url_as(postgres_store.url, "mighty", "mighty")
    database = Database(url, service="tests")
    with pytest.raises(PowerfulRole, match="Database roles"):
        database.check()
    database.close()
    with pytest.raises(SystemExit) as ended:
        check_role(url)
    assert ended.value.code == 1
    assert "AUTH_DATABASE_URL" in capfd.readouterr().err
    if who not in {"owner", "superuser"}:
        with superuser.transaction() as tx:
            tx.execute(text("DROP OWNED BY mighty"))
            tx.execute(text("DROP ROLE mighty"))


def test_a_service_does_not_start_as_the_owner(database_url: str, valkey_url: str) -> None:
    environ = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": database_url,
        "REDIS_URL": valkey_url,
        "JWT_SECRET": "s" * 32,
        "BOOTSTRAP_ADMIN_PASSWORD": "correct horse battery",
    }
    command = [sys.executable, "-m", "heartguard.serve", "auth", "--port", "1"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "No service may" in done.stderr
    assert "Traceback" not in done.stderr
    assert postgres_password(database_url) not in done.stderr


def postgres_password(url: str) -> str:
    return url.partition("@")[0].rpartition(":")[2]


def test_a_database_that_is_away_is_no_reason_not_to_start(short_folder: Path) -> None:
    check_role(f"postgresql://somebody:secret@/nothing?host={short_folder}")


# Settings


def test_a_service_sees_its_own_way_in_and_no_other() -> None:
    environ = {
        "DATABASE_URL": "postgresql://owner@/d",
        "AUTH_DATABASE_URL": "postgresql://heartguard_auth@/d",
        "TIMESERIES_DATABASE_URL_FILE": "/somewhere",
        "AUTH_DB_PASSWORD": "p",
        "USER_DB_PASSWORD_FILE": "/somewhere",
        "OTHER": "stays",
    }
    assert own_settings(SERVICES["auth"], environ) == {
        "DATABASE_URL": "postgresql://heartguard_auth@/d",
        "DATABASE_URL_FILE": "",
        "OTHER": "stays",
    }
    assert own_settings(SERVICES["timeseries"], environ) == {
        "DATABASE_URL": "",
        "DATABASE_URL_FILE": "/somewhere",
        "OTHER": "stays",
    }
    assert own_settings(SERVICES["gateway"], environ) == {"DATABASE_URL": "", "DATABASE_URL_FILE": "", "OTHER": "stays"}
    assert not any(value for name, value in closed(environ).items() if name != "OTHER")


def test_the_general_url_serves_where_a_service_has_none_of_its_own() -> None:
    environ = {"DATABASE_URL": "postgresql://heartguard_auth@/d"}
    assert load_own(DatabaseSettings, SERVICES["auth"], environ).database_url == environ["DATABASE_URL"]


def test_a_wrong_url_is_named_as_it_was_set() -> None:
    with pytest.raises(SettingsError, match=r"(?m)^  AUTH_DATABASE_URL: should be"):
        load_own(DatabaseSettings, SERVICES["auth"], {"AUTH_DATABASE_URL": "mysql://x"})


def test_passwords_come_from_the_environment_or_files(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORD + "\n")
    environ = {"AUTH_DB_PASSWORD": PASSWORD, "ORG_DB_PASSWORD_FILE": str(tmp_path / "password")}
    assert given_passwords(load(RolePasswords, environ)) == {"auth": PASSWORD, "organization": PASSWORD}
    with pytest.raises(SettingsError, match="USER_DB_PASSWORD: should be at least 16"):
        load(RolePasswords, {"USER_DB_PASSWORD": "short"})
