"""PostgreSQL: the engine with its limits, and the unit of work."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from . import metrics
from .errors import Unavailable

CONNECT_TIMEOUT = 3
POOL_TIMEOUT = 3
STATEMENT_TIMEOUT_MS = 15_000
LOCK_TIMEOUT_MS = 3_000


class Database:
    """A pool of connections to ``heartguard_core``; every wait on it has a limit."""

    def __init__(self, url: str, *, service: str, pool_size: int = 8) -> None:
        options = (
            f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}"
            f" -c idle_in_transaction_session_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC"
        )
        self._seconds = metrics.STORE.labels(service, "postgres")
        self.engine: Engine = create_engine(
            make_url(url).set(drivername="postgresql+psycopg"),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT,
            pool_pre_ping=True,
            hide_parameters=True,  # an error that is logged must not show e-mail addresses or hashes
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT,
                "application_name": f"heartguard-{service}",
                "options": options,
            },
        )

    @contextmanager
    def transaction(self, org_id: int | None = None) -> Iterator[Connection]:
        """One unit of work: committed at the end of the block, rolled back on any error.

        With ``org_id`` the rows of that organization are what row-level security lets through.
        PostgreSQL being away, restarting or locked for too long is :class:`Unavailable`.
        """
        try:
            with self._seconds.time(), self.engine.begin() as connection:
                if org_id is not None:
                    connection.execute(
                        text("SELECT set_config('heartguard.org_id', :org_id, true)"), {"org_id": str(org_id)}
                    )
                yield connection
        except PoolTimeoutError as error:
            raise Unavailable from error
        except DBAPIError as error:
            if is_unavailable(error):
                raise Unavailable from error
            raise

    def check(self) -> None:
        """Ask the database something; raises where it does not answer."""
        with self.transaction() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        self.engine.dispose()


# SQLSTATE classes that mean "not now" rather than "wrong": connection, resources, operator, deadlock, lock, cancel.
_PASSING = ("08", "53", "57", "58", "40001", "40P01", "55P03")


def is_unavailable(error: DBAPIError) -> bool:
    """Whether the statement failed because the database cannot work at present."""
    state = getattr(error.orig, "sqlstate", None)
    return error.connection_invalidated or state is None or str(state).startswith(_PASSING)
