"""What the database refuses, whatever the code does."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import text

from heartguard.roles import ROLES

from .conftest import Caller

TABLES = ("audit_events", "audit_checkpoints", "audit_archives")
OWN = "set_config('heartguard.org_id', %s, true)"


@pytest.fixture
def as_role(url_for: Callable[[str], str], database_url: str) -> Iterator[Callable[[str], Any]]:
    """A connection as a service, or as the ``owner`` of the tables; what it does is rolled back."""
    opened: list[Any] = []

    def connect(role: str) -> Any:
        connection = psycopg.connect(database_url if role == "owner" else url_for(role))
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.rollback()
        connection.close()


@pytest.fixture
def filled(admin: Caller, fill: Callable[..., None], recorder: Any, database: Any) -> Caller:
    fill(admin, 3)
    with database.transaction() as tx:
        recorder.sign(tx, admin.org_id)
    return admin


def partition(as_role: Callable[[str], Any]) -> str:
    (found,) = (
        as_role("owner")
        .execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits"
            " WHERE inhparent = 'heartguard_core.audit_events'::regclass ORDER BY 1 LIMIT 1"
        )
        .fetchone()
    )
    return str(found)


@pytest.mark.parametrize("role", ["audit", "owner"])
@pytest.mark.parametrize("table", TABLES)
def test_rows_are_seen_by_their_organization_only(
    filled: Caller, as_role: Callable[[str], Any], role: str, table: str
) -> None:
    def seen(org_id: str) -> int:
        connection = as_role(role)
        connection.execute(f"SELECT {OWN}", (org_id,))
        return int(connection.execute(f"SELECT count(*) FROM heartguard_core.{table}").fetchone()[0])

    if table != "audit_archives":
        assert seen(str(filled.org_id)) > 0
    assert seen("") == 0
    assert seen(str(filled.org_id + 1_000_000)) == 0
    nobody = as_role(role).execute(f"SELECT count(*) FROM heartguard_core.{table}").fetchone()
    assert nobody == (0,)


def test_a_row_of_another_organization_cannot_be_added(filled: Caller, as_role: Callable[[str], Any]) -> None:
    connection = as_role("audit")
    connection.execute(f"SELECT {OWN}", (str(filled.org_id + 1),))
    with pytest.raises(InsufficientPrivilege, match="row-level security"):
        connection.execute(
            "INSERT INTO heartguard_core.audit_events (org_id, sequence, event_id, actor, action, service, outcome,"
            " occurred_at, recorded_at, payload, hash) VALUES (%s, 99, gen_random_uuid(), '1', 'A', 's', 'success',"
            " now(), now(), '{}', sha256('x'))",
            (filled.org_id,),
        )


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("statement", ["UPDATE {} SET org_id = org_id", "DELETE FROM {}", "TRUNCATE {}"])
def test_nobody_alters_or_deletes(
    filled: Caller, as_role: Callable[[str], Any], superuser: Any, table: str, statement: str
) -> None:
    if table == "audit_archives":
        with superuser.transaction() as tx:
            tx.execute(
                text(
                    "INSERT INTO heartguard_core.audit_archives (org_id, sequence, hash) VALUES (:org, 0, sha256('x'))"
                ),
                {"org": filled.org_id},
            )
    for role in ("audit", "owner"):
        connection = as_role(role)
        connection.execute(f"SELECT {OWN}", (str(filled.org_id),))
        with pytest.raises(InsufficientPrivilege):
            connection.execute(statement.format(f"heartguard_core.{table}"))


def test_a_partition_is_no_way_round(filled: Caller, as_role: Callable[[str], Any]) -> None:
    name = partition(as_role)
    connection = as_role("audit")
    with pytest.raises(InsufficientPrivilege):
        connection.execute(f"SELECT count(*) FROM {name}")
    owner = as_role("owner")
    owner.execute(f"SELECT {OWN}", (str(filled.org_id),))
    assert owner.execute(f"SELECT count(*) FROM {name}").fetchone() == (0,)
    with pytest.raises(InsufficientPrivilege):
        owner.execute(f"TRUNCATE {name}")


def test_other_services_can_put_into_the_outbox_and_nothing_else(as_role: Callable[[str], Any]) -> None:
    for service in ROLES:
        connection = as_role(service)
        connection.execute(f"SELECT {OWN}", ("1",))
        connection.execute("INSERT INTO heartguard_core.audit_outbox (event) VALUES ('x')")
    for service in set(ROLES) - {"audit"}:
        for statement in (
            "SELECT FROM heartguard_core.audit_outbox",
            "DELETE FROM heartguard_core.audit_outbox",
            "UPDATE heartguard_core.audit_outbox SET event = ''",
            "INSERT INTO heartguard_core.audit_outbox (event, put_at) VALUES ('x', now())",
            "INSERT INTO heartguard_core.audit_outbox (event, org_id) VALUES ('x', 1)",
            "INSERT INTO heartguard_core.audit_outbox (event, service) VALUES ('x', 'auth')",
            "INSERT INTO heartguard_core.audit_outbox (event) VALUES ('of no organization')",
            "SELECT FROM heartguard_core.audit_events",
            "INSERT INTO heartguard_core.audit_event_ids VALUES (gen_random_uuid())",
            "SELECT FROM heartguard_core.audit_chains",
            "SELECT FROM heartguard_core.audit_intents",
            "SELECT FROM heartguard_core.audit_poison",
            "SELECT heartguard_core.audit_ensure_partition(now())",
        ):
            with pytest.raises(InsufficientPrivilege):
                as_role(service).execute(statement)


def test_the_audit_service_sees_nothing_of_others(as_role: Callable[[str], Any]) -> None:
    for table in ("users", "sessions", "refresh_tokens", "points", "organizations"):
        with pytest.raises(InsufficientPrivilege):
            as_role("audit").execute(f"SELECT FROM heartguard_core.{table}")
