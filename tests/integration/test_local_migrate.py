"""Migrations: from nothing, again, and by several at once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from heartguard.local.files import private_folder
from heartguard.local.postgres import Postgres
from heartguard.local.server import Running
from heartguard.migrate import LOCK_KEY, MigrationError, main, migrate


def version(url: str) -> object:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT version_num FROM heartguard_core.alembic_version").fetchall()


def test_several_at_once_migrate_once(short_folder: Path, database_url: str) -> None:
    postgres = Postgres(short_folder / "postgres", private_folder(short_folder / "secrets"), durable=False)
    running = Running(postgres)
    try:
        with ThreadPoolExecutor(4) as callers:
            list(callers.map(migrate, [postgres.url] * 4))
        assert version(postgres.url) == version(database_url)
    finally:
        running.stop()


def test_the_lock_is_let_go(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    main()
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK_KEY]).fetchone() == (True,)


def test_a_database_that_is_away_is_explained(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"postgresql://somebody:secret@/nothing?host={short_folder}"
    with pytest.raises(MigrationError, match="could not be migrated") as caught:
        migrate(url)
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(SystemExit, match="could not be migrated"):
        main()
