"""Migration 0013, with what there was before it, and with services of before it still at work."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import create_engine, make_url

from heartguard import audit
from heartguard.database import Database
from heartguard.local.files import private_folder
from heartguard.local.postgres import Postgres
from heartguard.local.server import Running
from heartguard.migrate import migrate
from heartguard.settings import ROOT
from services.audit.src.intake import OutboxReader
from services.audit.src.recorder import Recorder

from .conftest import SIGNER

OUTBOX = "INSERT INTO heartguard_core.audit_outbox (event) VALUES (%s)"
CLAIM = (
    "INSERT INTO heartguard_core.audit_event_ids (event_id) SELECT unnest(%s::text[])::uuid"
    " ON CONFLICT DO NOTHING RETURNING event_id::text"
)
"""What services say, those of before the migration too."""


@pytest.fixture
def postgres(short_folder: Path) -> Iterator[Postgres]:
    postgres = Postgres(short_folder / "postgres", private_folder(short_folder / "secrets"), durable=False)
    server = Running(postgres)
    migrate(postgres.url, "0012", passwords={name: postgres.password(name) for name in ("audit", "user")})
    yield postgres
    server.stop()


def made(org_id: int) -> audit.Event:
    return audit.make("LOGIN", "1", service="user", org_id=org_id)


def put(postgres: Postgres, event: audit.Event, org_id: int | None = None) -> None:
    with psycopg.connect(postgres.url_for("user")) as user:
        if org_id is not None:
            user.execute("SELECT set_config('heartguard.org_id', %s, true)", [str(org_id)])
        user.execute(OUTBOX, [audit.encode(event).decode()])


def claim(postgres: Postgres, event: audit.Event) -> int:
    with psycopg.connect(postgres.url_for("audit")) as former:
        return len(former.execute(CLAIM, [[event.event_id]]).fetchall())


def test_there_and_back(postgres: Postgres) -> None:
    events = [made(1), made(1), made(1)]
    put(postgres, events[0])
    assert claim(postgres, events[1]) == 1
    migrate(postgres.url)
    put(postgres, events[2], 1)
    with pytest.raises(InsufficientPrivilege):
        put(postgres, events[2])
    former = made(1)
    assert [claim(postgres, former) for _ in range(2)] == [1, 0]
    database = Database(postgres.url_for("audit"), service="tests")
    recorder = Recorder(database, SIGNER)
    assert OutboxReader(database, recorder).work() == 0
    with database.transaction() as tx:
        assert recorder.append(tx, [*events, former, made(2)]) == 1, "the others are known"
        same = made(1)
        both = [same, audit.make("LOGIN", "1", service="user", org_id=2, event_id=same.event_id, outcome="intent")]
        assert recorder.append(tx, both) == 2
    database.close()
    downgrade(postgres.url)
    put(postgres, made(1))
    assert [claim(postgres, same), claim(postgres, made(1))] == [0, 1]
    migrate(postgres.url)


def downgrade(url: str) -> None:
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        configuration = Config(attributes={"connection": connection})
        configuration.set_main_option("script_location", str(ROOT / "migrations"))
        command.downgrade(configuration, "0012")
        connection.commit()
    engine.dispose()
