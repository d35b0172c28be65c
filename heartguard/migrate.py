"""Bring a database to the newest schema.

Migrations run as a step of their own, never from a service, and one at a time: whoever comes
second waits for the first and then finds nothing left to do.
"""

import sys
from collections.abc import Mapping

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.pool import NullPool

from .database import make_patient, patient
from .roles import SCHEMA, RolePasswords, let_in
from .settings import ROOT, DatabaseSettings, SettingsError, load

LOCK_KEY = 0x4865617274  # "Heart": any number that nobody else takes
WAIT_MS = 120_000
LOCK_TIMEOUT_MS = 10_000
STATEMENT_TIMEOUT_MS = 60_000
HINT = "\nIts owner must be allowed to make roles, or they must be there: see 'Database roles' in docs/operations.md."
ANSWER_TIMEOUT = WAIT_MS / 1000 + 5
"""Seconds for any answer: more than the server lets a statement take, so that only one that hangs is given up."""


class MigrationError(Exception):
    """The database cannot be reached, or not be changed now; the message says why."""


def migrate(database_url: str, revision: str = "head", *, passwords: Mapping[str, str] | None = None) -> None:
    """Apply all migrations up to ``revision``, and let services sign in with their ``passwords``.

    Any number of callers may do so at once. Each waits up to :data:`WAIT_MS` milliseconds for its turn; inside,
    a statement that waits for a lock or runs for too long fails, and the schema stays as it was; a database that
    does not answer at all is given up soon after. Raises :class:`MigrationError`.
    """
    try:
        _migrate(database_url, revision, passwords or {})
    except (OperationalError, ProgrammingError, psycopg.Error) as error:
        cause = getattr(error, "orig", error)
        if isinstance(error, ProgrammingError) and not isinstance(cause, psycopg.errors.InsufficientPrivilege):
            raise  # a migration that is wrong
        hint = HINT if isinstance(cause, psycopg.errors.InsufficientPrivilege) else ""
        raise MigrationError(f"The database could not be migrated: {cause}{hint}") from error


def _migrate(database_url: str, revision: str, passwords: Mapping[str, str]) -> None:
    url = make_url(database_url).set(drivername="postgresql+psycopg")
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 5, "options": "-c timezone=UTC"})
    make_patient(engine)
    with engine.connect() as connection, patient(connection).at_work(ANSWER_TIMEOUT):
        _set_limits(connection, lock=WAIT_MS, statement=WAIT_MS)
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK_KEY})
        _set_limits(connection, lock=LOCK_TIMEOUT_MS, statement=STATEMENT_TIMEOUT_MS)
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        connection.commit()
        configuration = Config(attributes={"connection": connection})
        configuration.set_main_option("script_location", str(ROOT / "migrations").replace("%", "%%"))
        command.upgrade(configuration, revision)
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        let_in(driver, passwords)
        driver.commit()


def _set_limits(connection: Connection, *, lock: int, statement: int) -> None:
    """Time limits of the session, in milliseconds."""
    for name, value in (("lock_timeout", lock), ("statement_timeout", statement)):
        connection.execute(text("SELECT set_config(:name, :value, false)"), {"name": name, "value": str(value)})


def given_passwords(settings: RolePasswords) -> dict[str, str]:
    return {service: password for service, password in vars(settings).items() if password is not None}


def main() -> None:
    """Migrate the database of ``DATABASE_URL``, and let in the services whose ``<SERVICE>_DB_PASSWORD`` is set."""
    try:
        migrate(load(DatabaseSettings).database_url, passwords=given_passwords(load(RolePasswords)))
    except (SettingsError, MigrationError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
