"""Builds indexes of points anew, where they have grown loose. Done by the database's owner, never by the service.

Where points of many series come in turns, PostgreSQL leaves the pages of their index half full, and those of a series
all over the file: what is read of one then costs twice the pages, each from another place on the disk. Built anew, the
index is dense and a series lies together. The service reads and writes meanwhile.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from heartguard.roles import SCHEMA

LOCK_KEY = 0x496E646578  # "Index": any number that nobody else takes
LOCK_TIMEOUT_MS = 60_000
"""For transactions that began before, and hold the change up."""
STATEMENT_TIMEOUT_MS = 6 * 3600 * 1000
CONNECT_TIMEOUT = 5

LOOSE = 1.4
"""How many times the size of a dense index one has that is worth the work. A dense one reaches that only once its table
has grown by two thirds, so that on average a point is moved a few times at most."""
DENSE_BYTES = 49
"""Of a point in a dense index: four columns of 8 bytes, 12 of PostgreSQL's own, and a tenth of the page left free."""
SMALL_BYTES = 4 * 1024 * 1024

_INDEXES = """
SELECT i.relname, pg_relation_size(i.oid), t.reltuples
FROM pg_partition_tree(CAST('heartguard_core.points' AS regclass)) p
JOIN pg_class t ON t.oid = p.relid
JOIN pg_index x ON x.indrelid = t.oid
JOIN pg_class i ON i.oid = x.indexrelid
WHERE p.isleaf AND x.indisvalid
ORDER BY 2
"""
_LEFT_OVER = """
SELECT i.relname
FROM pg_partition_tree(CAST('heartguard_core.points' AS regclass)) p
JOIN pg_index x ON x.indrelid = p.relid
JOIN pg_class i ON i.oid = x.indexrelid
WHERE p.isleaf AND NOT x.indisvalid
"""


class ReindexError(Exception):
    """The message says what to do."""


class Index(NamedTuple):
    """An index that was looked at; sizes are in bytes."""

    name: str
    size: int
    dense: float

    @property
    def is_loose(self) -> bool:
        return self.size > SMALL_BYTES and self.size > LOOSE * self.dense


class Indexes:
    """The indexes of points, the smallest first. One at a time may work on them."""

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def of(cls, database_url: str) -> Iterator["Indexes"]:
        """``database_url`` is the owner's. Raises :class:`ReindexError`."""
        options = f"-c lock_timeout={LOCK_TIMEOUT_MS} -c statement_timeout={STATEMENT_TIMEOUT_MS}"
        try:
            with psycopg.connect(
                database_url, autocommit=True, connect_timeout=CONNECT_TIMEOUT, options=options
            ) as connection:
                if connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK_KEY,)).fetchone() != (True,):
                    raise ReindexError("Indexes are being built anew already: wait until that has ended.")
                try:
                    yield cls(connection)
                finally:  # PostgreSQL would give it back only once it has noticed that the connection is closed
                    if not connection.broken:
                        connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK_KEY,))
        except psycopg.errors.LockNotAvailable as error:
            raise ReindexError(
                f"A transaction has held this up for {LOCK_TIMEOUT_MS // 1000} s: {error}. Call it again later."
            ) from error
        except psycopg.Error as error:
            raise ReindexError(f"The index could not be built: {error}") from error

    def all(self) -> list[Index]:
        return [Index(name, size, rows * DENSE_BYTES) for name, size, rows in self._connection.execute(_INDEXES)]

    def rebuild(self, index: Index) -> int:
        """Build it anew; its size then. What an earlier try, broken off, has left is removed."""
        for (name,) in self._connection.execute(_LEFT_OVER).fetchall():
            self._connection.execute(sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(SCHEMA, name)))
        self._connection.execute(sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(sql.Identifier(SCHEMA, index.name)))
        return next(found.size for found in self.all() if found.name == index.name)
