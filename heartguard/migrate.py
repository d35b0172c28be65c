"""Bring a database to the newest schema.

Migrations run as a step of their own, never from a service, and one at a time: whoever comes
second waits for the first and then finds nothing left to do.
"""

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from .settings import ROOT, DatabaseSettings, SettingsError, load

SCHEMA = "heartguard_core"
LOCK_KEY = 0x4865617274  # "Heart": any number that nobody else takes
WAIT_MS = 120_000
LOCK_TIMEOUT_MS = 10_000
STATEMENT_TIMEOUT_MS = 60_000


class MigrationError(Exception):
    """The database cannot be reached, or not be changed now; the message says why."""


def migrate(database_url: str, revision: str = "head", folder: Path = ROOT / "migrations") -> None:
    """Apply all migrations up to ``revision``.

    Any number of callers may do so at once. Each waits up to :data:`WAIT_MS` milliseconds for its turn; inside,
    a statement that waits for a lock or runs for too long fails, and the schema stays as it was.
    Raises :class:`MigrationError`.
    """
    try:
        _migrate(database_url, revision, folder)
    except OperationalError as error:
        raise MigrationError(f"The database could not be migrated: {error.orig}") from error


def _migrate(database_url: str, revision: str, folder: Path) -> None:
    url = make_url(database_url).set(drivername="postgresql+psycopg")
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 5, "options": "-c timezone=UTC"})
    with engine.connect() as connection:
        _set_limits(connection, lock=WAIT_MS, statement=WAIT_MS)
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK_KEY})
        _set_limits(connection, lock=LOCK_TIMEOUT_MS, statement=STATEMENT_TIMEOUT_MS)
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        connection.commit()
        configuration = Config(attributes={"connection": connection})
        configuration.set_main_option("script_location", str(folder).replace("%", "%%"))
        command.upgrade(configuration, revision)


def _set_limits(connection: Connection, *, lock: int, statement: int) -> None:
    """Time limits of the session, in milliseconds."""
    for name, value in (("lock_timeout", lock), ("statement_timeout", statement)):
        connection.execute(text("SELECT set_config(:name, :value, false)"), {"name": name, "value": str(value)})


def main() -> None:
    """Migrate the database that ``DATABASE_URL`` names."""
    try:
        migrate(load(DatabaseSettings).database_url)
    except (SettingsError, MigrationError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
