"""Old months leave the database for files, and the chain holds across both."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import text
from typer.testing import CliRunner

from heartguard import audit
from heartguard.audit import verify
from heartguard.audit.verify import Altered
from heartguard.cli.main import app as command
from heartguard.database import Database
from heartguard.local.files import private_folder
from heartguard.local.postgres import Postgres
from heartguard.local.server import Running
from heartguard.migrate import migrate
from services.audit.src import archive as module
from services.audit.src.archive import Owner, Refused, archive
from services.audit.src.recorder import Recorder

from .conftest import KEY, SIGNER, Caller, running

MONTHS = [datetime(2024, month, 15, tzinfo=UTC) for month in (1, 2, 3)]


@pytest.fixture
def postgres(short_folder: Path) -> Iterator[Postgres]:
    """A database of the test's own: months are dropped here."""
    postgres = Postgres(short_folder / "postgres", private_folder(short_folder / "secrets"), durable=False)
    server = Running(postgres)
    migrate(postgres.url, passwords={"audit": postgres.password("audit")})
    yield postgres
    server.stop()


@pytest.fixture
def app(postgres: Postgres, environ: dict[str, str]) -> Iterator[Flask]:
    with running({**environ, "DATABASE_URL": postgres.url_for("audit"), "REDIS_URL": "redis://127.0.0.1:1/0"}) as app:
        yield app


@pytest.fixture
def admin(app: Flask, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Caller:
    """Of organization 1, with 10 events in each of three months; organization 2 has some of the last only."""
    database = Database(postgres.url_for("audit"), service="tests")
    recorder = Recorder(database, SIGNER)
    for month in MONTHS:
        for org_id in (1, 2) if month is MONTHS[-1] else (1,):
            record_at(recorder, database, org_id, month, monkeypatch)
    monkeypatch.undo()
    database.close()
    return Caller(app, 1)


def record_at(recorder: Recorder, database: Any, org_id: int, at: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the database's clock stood at that time."""
    from services.audit.src import db

    lock = db.lock_chain

    def at_that_time(*arguments: Any) -> Any:
        head = lock(*arguments)
        return db.Head(head.sequence, head.hash, at, head.signed)

    monkeypatch.setattr(db, "lock_chain", at_that_time)
    with database.transaction() as tx:
        recorder.append(tx, [audit.make("LOGIN", "1", service="auth", org_id=org_id) for _ in range(10)])
        recorder.sign(tx, org_id)
    monkeypatch.setattr(db, "lock_chain", lock)


def test_a_chain_goes_on_from_what_was_archived(
    admin: Caller, postgres: Postgres, tmp_path: Path, check_offline: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    whole = admin.export()
    owner = Owner(postgres.url)
    assert archive(owner, SIGNER, date(2024, 1, 31), tmp_path / "archive") == []
    files = archive(owner, SIGNER, date(2024, 2, 1), tmp_path / "archive")
    files += archive(owner, SIGNER, date(2024, 3, 31), tmp_path / "archive")
    assert [file.name for file in files] == [
        "audit-1-000000000001-000000000010.ndjson",
        "audit-1-000000000011-000000000020.ndjson",
    ]
    parts = [*(file.read_bytes() for file in files), admin.export()]
    assert check_offline(*parts) == verify.WHOLE
    assert "WHOLE  organization 1: events 1 to 30, hash" in (told := capsys.readouterr().out)
    assert [line for line in told.splitlines() if "NOT CHECKED" in line and "recorded after" not in line] == []
    assert check_offline(parts[0], parts[2]) == verify.ALTERED, "one is missing in between"
    assert "a part is missing before this one: events 11 to 20" in capsys.readouterr().out
    assert check_offline(*parts[1:]) == verify.PART
    assert "PART   organization 1: events 11 to 30, hash" in (told := capsys.readouterr().out)
    assert "NOT CHECKED: events 1 to 10;" in told
    assert check_offline(*parts[:2]) == verify.PART
    assert "NOT CHECKED: whatever comes after event 20;" in capsys.readouterr().out
    assert check_offline(whole) == verify.WHOLE
    found = admin.verification()
    assert (found["valid"], found["events"], found["first_sequence"], found["last_sequence"]) == (True, 10, 21, 30)
    assert admin.post().status_code == 201
    assert admin.verification()["last_sequence"] == 31
    assert len(admin.events()) == 11
    assert len(Caller(admin.app, 2).events()) == 10


def test_parts_are_of_what_was_not_archived(
    admin: Caller, postgres: Postgres, tmp_path: Path, check_offline: Callable[..., int]
) -> None:
    files = archive(Owner(postgres.url), SIGNER, date(2024, 2, 1), tmp_path / "archive")
    for asked in ("from_sequence=10", "to_sequence=10"):
        assert admin.send("GET", f"/audit/export?{asked}").status_code == 422
    parts = [files[0].read_bytes(), admin.export("?to_sequence=15"), admin.export("?from_sequence=16")]
    assert check_offline(*parts) == verify.WHOLE


def test_nothing_is_dropped_where_the_trail_is_not_whole(admin: Caller, postgres: Postgres, tmp_path: Path) -> None:
    from sqlalchemy import create_engine, make_url

    engine = create_engine(make_url(postgres.superuser_url).set(drivername="postgresql+psycopg"))
    with engine.begin() as tx:
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        tx.execute(text("UPDATE heartguard_core.audit_events SET actor = '2' WHERE org_id = 1 AND sequence = 5"))
    engine.dispose()
    with pytest.raises(Altered, match="event 5 was altered"):
        archive(Owner(postgres.url), SIGNER, date(2024, 2, 1), tmp_path)
    assert len(admin.events()) == 30


def test_the_month_that_is_written_to_stays(admin: Caller, postgres: Postgres, tmp_path: Path) -> None:
    assert admin.post().status_code == 201
    this_month = datetime.now(UTC).date().replace(day=1)
    with pytest.raises(Refused, match=str(this_month)):
        archive(Owner(postgres.url), SIGNER, this_month + timedelta(days=1), tmp_path)
    assert archive(Owner(postgres.url), SIGNER, this_month, tmp_path)
    assert admin.post().status_code == 201
    assert admin.verification()["events"] == 2


@pytest.mark.parametrize("late", [1, 2, 3])
def test_what_is_recorded_while_files_are_written_is_not_dropped(
    admin: Caller, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    """Into the chain of organization 1; of 2, which has nothing so old; of 3, which had no chain."""
    database = Database(postgres.url_for("audit"), service="tests")
    written = module._write

    def write_late(*arguments: Any) -> Path:
        with monkeypatch.context() as at_once:
            record_at(Recorder(database, SIGNER), database, late, MONTHS[1], at_once)
        return written(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(module, "_write", write_late)
        with pytest.raises(Refused, match=f"Organization {late} has just recorded more"):
            archive(Owner(postgres.url), SIGNER, date(2024, 3, 1), tmp_path)
    database.close()
    assert list(tmp_path.iterdir()) == []
    assert len(admin.events()) == 30 + 10 * (late == 1)


def test_a_partition_that_somebody_took_away_is_made_again(
    admin: Caller, postgres: Postgres, eventually: Callable[..., None]
) -> None:
    this_month = f"heartguard_core.audit_events_{datetime.now(UTC):%Y_%m}"
    owner = Owner(postgres.url)

    def take_away() -> None:
        with owner.transaction() as tx:
            tx.execute(text(f"ALTER TABLE heartguard_core.audit_events DETACH PARTITION {this_month}"))
            tx.execute(text(f"DROP TABLE {this_month}"))

    take_away()
    assert [admin.post().status_code for _ in range(2)] == [503, 201]
    take_away()
    with psycopg.connect(postgres.superuser_url) as connection:
        outbox = "INSERT INTO heartguard_core.audit_outbox (event) VALUES (%s)"
        connection.execute(outbox, [audit.encode(admin.event("LOGOUT")).decode()])
    eventually(lambda: admin.events("?action=LOGOUT"))
    with psycopg.connect(postgres.superuser_url) as connection:
        assert connection.execute("SELECT count(*) FROM heartguard_core.audit_poison").fetchone() == (0,)


def test_by_command(admin: Caller, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DATABASE_URL": postgres.url, "AUDIT_DATABASE_URL": postgres.url_for("audit"), "REDIS_URL": "redis://x",
        "AUDIT_SIGNING_KEY": KEY, "HEARTGUARD_DATA": str(tmp_path / "data"),
        "JWT_SECRET": "s" * 32, "BOOTSTRAP_ADMIN_PASSWORD": "correct horse battery staple",
        **{f"{name}_DATABASE_URL": postgres.url_for("audit") for name in ("AUTH", "ORG", "USER", "TIMESERIES")},
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    runner = CliRunner()
    shown = runner.invoke(command, ["audit", "key"])
    assert shown.stdout.strip() == SIGNER.public_key.hex(), shown.output
    (tmp_path / "key").write_text(shown.stdout)
    done = runner.invoke(command, ["audit", "archive", str(tmp_path / "archive"), "--before", "2024-03-01"])
    assert done.exit_code == 0, done.output
    file = done.stdout.split()[0]
    checked = runner.invoke(command, ["audit", "verify", file, "--key", str(tmp_path / "key")])
    assert (checked.exit_code, checked.stdout.startswith("PART   organization 1: events 1 to 20,")) == (3, True)
    refused = runner.invoke(command, ["audit", "archive", str(tmp_path / "archive"), "--before", "2999-01-01"])
    assert (refused.exit_code, "still being written to" in refused.output) == (1, True)
    again = runner.invoke(command, ["audit", "archive", str(tmp_path / "archive"), "--before", "2024-03-01"])
    assert (again.exit_code, "no month that old" in again.output) == (0, True)
