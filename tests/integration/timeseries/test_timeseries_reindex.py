"""Indexes of points that have grown loose are built anew, and only those."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from heartguard.cli.main import app
from services.influx.src.db import PostgresStore
from services.influx.src.reindex import LOCK_KEY, Index, Indexes
from services.influx.src.store import Batch, Selection, Series, StoredBucket

from .conftest import Backend, new_store

SERIES, ROUNDS, AT_ONCE = 500, 20, 10


@pytest.fixture
def store(url_for: Callable[[str], str]) -> Iterator[PostgresStore]:
    made = new_store(Backend("postgres", {"DATABASE_URL": url_for("timeseries")}))
    assert isinstance(made, PostgresStore)
    yield made
    made.close()


@pytest.fixture
def bucket(store: PostgresStore, superuser: Any, org: int) -> StoredBucket:
    """With points of many series that came in turns."""
    made = store.create_bucket(org, f"org_{org}_loose", retention_seconds=0, description=None)
    assert made is not None
    for turn in range(ROUNDS):
        batch: Batch = store.batch(made)
        times = range(turn * AT_ONCE, (turn + 1) * AT_ONCE)
        for number in range(SERIES):
            batch.add(Series("m", (("n", str(number)),)), "f", times, [float(time) for time in times])
        batch.write()
    with superuser.transaction() as tx:
        tx.execute(text(f"ANALYZE heartguard_core.points_{int(made.id)}"))
    return made


@pytest.fixture
def reindex(database_url: str, tmp_path: Path) -> Callable[..., Result]:
    """``heartguard timeseries reindex``, by the owner."""
    environ = {"DATABASE_URL": database_url, "HEARTGUARD_DATA": str(tmp_path), "COLUMNS": "200"}
    return lambda *given: CliRunner().invoke(app, ["timeseries", "reindex", *given], env=environ)


def index_of(database_url: str, bucket: StoredBucket) -> Index:
    with Indexes.of(database_url) as indexes:
        return next(index for index in indexes.all() if index.name == f"points_{bucket.id}_pkey")


def content(store: PostgresStore, bucket: StoredBucket) -> list[Any]:
    selection = Selection(
        measurement="m", start=0, stop=10**18, fields=None, tags={"n": "7"}, aggregate=None, window=1, limit=10_000
    )
    return store.select(bucket, selection)


def test_a_loose_index_becomes_dense_and_nothing_is_lost(
    store: PostgresStore, bucket: StoredBucket, database_url: str, reindex: Callable[..., Result]
) -> None:
    before, points = index_of(database_url, bucket), content(store, bucket)
    assert before.is_loose
    assert len(points) == ROUNDS * AT_ONCE
    result = reindex()
    assert result.exit_code == 0
    assert before.name in result.output
    after = index_of(database_url, bucket)
    assert not after.is_loose
    assert after.size < 0.75 * before.size
    assert content(store, bucket) == points
    again = reindex()
    assert again.exit_code == 0
    assert before.name not in again.output


def test_all_are_built_anew_where_that_is_asked_for(
    store: PostgresStore, database_url: str, org: int, reindex: Callable[..., Result]
) -> None:
    small = store.create_bucket(org, f"org_{org}_small", retention_seconds=0, description=None)
    assert small is not None
    name = index_of(database_url, small).name
    assert name not in reindex().output
    assert name in reindex("--all").output


def test_what_was_broken_off_is_cleared_away(
    bucket: StoredBucket, database_url: str, superuser: Any, reindex: Callable[..., Result]
) -> None:
    table = f"points_{int(bucket.id)}"
    with superuser.transaction() as tx:
        tx.execute(text(f"CREATE INDEX {table}_pkey_ccnew ON heartguard_core.{table} (ts)"))
        tx.execute(
            text("UPDATE pg_index SET indisvalid = false WHERE indexrelid = CAST(:name AS regclass)"),
            {"name": f"heartguard_core.{table}_pkey_ccnew"},
        )
    assert reindex().exit_code == 0
    with superuser.transaction() as tx:
        left = tx.execute(text("SELECT to_regclass(:name)"), {"name": f"heartguard_core.{table}_pkey_ccnew"}).scalar()
    assert left is None


def test_one_at_a_time(database_url: str, reindex: Callable[..., Result]) -> None:
    with psycopg.connect(database_url) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
        result = reindex()
    assert result.exit_code == 1
    assert "already" in result.output


def test_a_database_that_is_away(tmp_path: Path) -> None:
    environ = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "HEARTGUARD_DATA": str(tmp_path)}
    result = CliRunner().invoke(app, ["timeseries", "reindex"], env=environ)
    assert result.exit_code == 1
    assert "could not be built" in result.output
