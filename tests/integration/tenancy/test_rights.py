"""Each role tried against each table, column and verb: what is stated here works, and nothing else does."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text

from heartguard.roles import ROLES

SCHEMA = "heartguard_core"
EVERY = "every column"

RIGHTS: dict[str, dict[str, dict[str, str]]] = {
    "auth": {
        "organizations": {"SELECT": "id", "INSERT": "id name"},
        "users": {
            "SELECT": "id org_id email password_hash role first_name last_name created_at last_login_at deleted_at",
            "INSERT": "org_id email password_hash role first_name last_name",
            "UPDATE": "password_hash updated_at last_login_at",
        },
        "sessions": {
            "SELECT": EVERY,
            "INSERT": "id user_id ip user_agent access_expires_at refresh_expires_at",
            "UPDATE": "last_used_at access_expires_at refresh_expires_at ended_at",
            "DELETE": EVERY,
        },
        "refresh_tokens": {
            "SELECT": EVERY,
            "INSERT": "jti session_id token_hash issued_at expires_at role kid",
            "UPDATE": "used_at replaced_by",
            "DELETE": EVERY,
        },
        "revoked_tokens": {"SELECT": EVERY, "INSERT": "kind id expires_at", "UPDATE": "published", "DELETE": EVERY},
    },
    "organization": {
        "organizations": {"SELECT": EVERY, "UPDATE": "name policies contact_email timezone updated_at"},
    },
    "user": {
        "users": {
            "SELECT": "id org_id email role first_name last_name created_at updated_at deleted_at",
            "UPDATE": "role first_name last_name updated_at deleted_at",
        },
        "user_preferences": {"SELECT": EVERY, "INSERT": EVERY, "UPDATE": "preferences"},
        "sessions": {"SELECT": "id user_id access_expires_at ended_at", "UPDATE": "ended_at"},
        "revoked_tokens": {"SELECT": "kind id", "INSERT": "kind id expires_at"},
    },
    "media": {
        "media_items": {
            "SELECT": EVERY,
            "INSERT": "id org_id owner_id file_name object_name content_type size sha256",
            "UPDATE": "state changed_at created_at",
            "DELETE": EVERY,
        },
        "media_sweeps": {"SELECT": EVERY, "UPDATE": "begun_at"},
    },
    "timeseries": {
        "buckets": {"SELECT": EVERY, "UPDATE": "description"},
        "fields": {"SELECT": EVERY, "INSERT": EVERY},
        "series": {"SELECT": "id bucket_id digest", "INSERT": "bucket_id measurement field tags digest"},
        "points": {"SELECT": EVERY, "INSERT": EVERY, "UPDATE": "value_float value_int value_bool value_text"},
    },
    "audit": {
        "audit_outbox": {"SELECT": EVERY, "DELETE": EVERY},
        "audit_chains": {"SELECT": EVERY, "INSERT": EVERY, "UPDATE": "sequence hash recorded_at signed"},
        "audit_events": {"SELECT": EVERY, "INSERT": EVERY},
        "audit_event_ids": {"SELECT": EVERY, "INSERT": EVERY},
        "audit_intents": {"SELECT": EVERY, "INSERT": EVERY, "DELETE": EVERY},
        "audit_checkpoints": {"SELECT": EVERY, "INSERT": EVERY},
        "audit_archives": {"SELECT": EVERY},
        "audit_poison": {"SELECT": EVERY, "INSERT": "org_id source reason raw"},
    },
}
"""What each service may do with which columns of which table. DELETE knows no columns."""

for stated in RIGHTS.values():  # the event of a change is written where the change is
    stated.setdefault("audit_outbox", {})["INSERT"] = "event"

FUNCTIONS = {
    "audit": {"audit_ensure_partition"},
    "timeseries": {
        "bucket_organizations", "choose_series", "create_bucket", "drop_bucket",
        "ensure_partitions", "expire", "expiring_buckets", "forget_series", "purge_dropped",
    },
}  # fmt: skip
FOR_ALL = {"org_id"}
SEQUENCES = {"auth": {"organizations_id_seq"}}
ATTEMPTS = {
    "SELECT": sql.SQL("SELECT {column} FROM {table} LIMIT 0"),
    "INSERT": sql.SQL("INSERT INTO {table} ({column}) OVERRIDING SYSTEM VALUE SELECT NULL WHERE false"),
    "UPDATE": sql.SQL("UPDATE {table} SET {column} = DEFAULT WHERE false"),
}
NEVER = (
    sql.SQL("TRUNCATE {table}"),
    sql.SQL("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"),
    sql.SQL("ALTER TABLE {table} OWNER TO CURRENT_USER"),
    sql.SQL("CREATE TRIGGER mine BEFORE INSERT ON {table} EXECUTE FUNCTION suppress_redundant_updates_trigger()"),
    sql.SQL("CREATE POLICY mine ON {table} USING (true)"),
    sql.SQL("DROP TABLE {table}"),
)


@pytest.fixture(scope="session")
def tables(superuser: Any) -> dict[str, list[str]]:
    """The columns of every table that there is, but for the partitions of others."""
    with superuser.transaction() as tx:
        found = tx.execute(
            text(
                "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
                " WHERE c.relnamespace = 'heartguard_core'::regnamespace AND c.relkind IN ('r', 'p')"
                " AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, a.attnum"
            )
        ).all()
    columns: dict[str, list[str]] = {}
    for table, column in found:
        columns.setdefault(table, []).append(column)
    return columns


@pytest.mark.parametrize("service", ROLES)
def test_only_what_is_granted_works(service: str, tables: dict[str, list[str]], url_for: Callable[[str], str]) -> None:
    stated = RIGHTS[service]
    assert stated.keys() <= tables.keys()
    works: dict[str, dict[str, str]] = {}
    with psycopg.connect(url_for(service), autocommit=True) as connection:
        for table, columns in tables.items():
            named = sql.Identifier(SCHEMA, table)
            for verb, attempt in ATTEMPTS.items():
                allowed = [
                    column
                    for column in columns
                    if succeeds(connection, attempt.format(table=named, column=sql.Identifier(column)))
                ]
                if allowed:
                    works.setdefault(table, {})[verb] = EVERY if allowed == columns else " ".join(allowed)
            if succeeds(connection, sql.SQL("DELETE FROM {table} WHERE false").format(table=named)):
                works.setdefault(table, {})["DELETE"] = EVERY
            assert not any(succeeds(connection, never.format(table=named)) for never in NEVER), table
    assert works == {
        table: {verb: in_order(of, tables[table]) for verb, of in rights.items()} for table, rights in stated.items()
    }


def in_order(stated: str, columns: list[str]) -> str:
    if stated == EVERY:
        return EVERY
    assert set(stated.split()) <= set(columns)
    found = [column for column in columns if column in stated.split()]
    return EVERY if found == columns else " ".join(found)


def succeeds(connection: "psycopg.Connection[Any]", statement: sql.Composed) -> bool:
    """False where it is not allowed; any other failure is this test's own."""
    try:
        connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


@pytest.mark.parametrize("service", ROLES)
def test_only_granted_functions_and_sequences_can_be_used(service: str, superuser: Any) -> None:
    with superuser.transaction() as tx:
        functions = tx.execute(
            text(
                "SELECT proname FROM pg_proc WHERE pronamespace = 'heartguard_core'::regnamespace"
                " AND has_function_privilege(:role, oid, 'EXECUTE')"
            ),
            {"role": ROLES[service]},
        )
        sequences = tx.execute(
            text(
                "SELECT relname FROM pg_class WHERE relnamespace = 'heartguard_core'::regnamespace"
                " AND CASE WHEN relkind = 'S' THEN has_sequence_privilege(:role, oid, 'USAGE, SELECT, UPDATE') END"
            ),
            {"role": ROLES[service]},
        )
        assert set(functions.scalars()) == FUNCTIONS.get(service, set()) | FOR_ALL
        assert set(sequences.scalars()) == SEQUENCES.get(service, set())


@pytest.mark.parametrize("service", ROLES)
def test_nobody_makes_anything(service: str, url_for: Callable[[str], str]) -> None:
    with psycopg.connect(url_for(service), autocommit=True) as connection:
        for statement in (
            "CREATE TABLE heartguard_core.mine (x int)",
            "CREATE TABLE public.mine (x int)",
            "CREATE SCHEMA mine",
            "CREATE ROLE mine",
            "ALTER ROLE heartguard_audit SUPERUSER",
            "SET ROLE heartguard",
            "SELECT * FROM pg_authid",
            "SELECT pg_read_file('PG_VERSION')",
            "COPY (SELECT 1) TO PROGRAM 'true'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_every_table_of_an_organization_is_under_forced_row_level_security(superuser: Any) -> None:
    """All that have an ``org_id``, or a bucket that has; but series, whose owner's functions look for tags."""
    with superuser.transaction() as tx:
        found = tx.execute(
            text(
                "SELECT DISTINCT c.relname, c.relrowsecurity, c.relforcerowsecurity"
                " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname IN ('org_id', 'bucket_id')"
                " WHERE c.relnamespace = 'heartguard_core'::regnamespace AND c.relkind IN ('r', 'p')"
                " AND NOT c.relispartition AND NOT (c.relrowsecurity AND c.relforcerowsecurity)"
            )
        ).all()
        # Of dropped buckets nobody but the owner knows.
        assert set(found) == {("series", True, False), ("dropped_buckets", False, False)}
        assert tx.execute(
            text("SELECT relforcerowsecurity FROM pg_class WHERE oid = 'heartguard_core.organizations'::regclass")
        ).scalar_one()


def test_without_an_organization_nothing_is_visible_not_even_to_the_owner(
    site: Any, org: int, url_for: Callable[[str], str], database_url: str
) -> None:
    site.person(org)
    readers = {"auth": ("users", "sessions", "refresh_tokens", "organizations"), "organization": ("organizations",)}
    readers["user"] = ("users", "sessions", "user_preferences")
    for service, tables in readers.items():
        for setting in (None, "", str(org)):
            with psycopg.connect(url_for(service)) as connection:
                if setting is not None:
                    connection.execute("SELECT set_config('heartguard.org_id', %s, true)", [setting])
                for table in tables:
                    key = "jti" if table == "refresh_tokens" else "user_id" if table == "user_preferences" else "id"
                    found = connection.execute(
                        sql.SQL("SELECT count({}) FROM {}").format(sql.Identifier(key), sql.Identifier(SCHEMA, table))
                    ).fetchone()
                    visible = setting == str(org) and table in {"users", "sessions", "organizations"}
                    assert found == (int(visible),), (service, table, setting)
    with psycopg.connect(database_url) as owner:
        assert owner.execute("SELECT count(*) FROM heartguard_core.users").fetchone() == (0,)


def test_auth_sees_by_address_one_living_user_and_no_more(site: Any, org: int, url_for: Callable[[str], str]) -> None:
    user, _ = site.person(org), site.person(org)
    with psycopg.connect(url_for("auth")) as connection:
        connection.execute("SELECT set_config('heartguard.email', %s, true)", [user.email])
        assert connection.execute("SELECT id FROM heartguard_core.users").fetchall() == [(user.id,)]
        changed = connection.execute("UPDATE heartguard_core.users SET last_login_at = now() RETURNING id").fetchall()
        assert changed == []
        assert connection.execute("SELECT id FROM heartguard_core.sessions").fetchall() == []
    with psycopg.connect(url_for("user")) as connection:
        connection.execute("SELECT set_config('heartguard.email', %s, true)", [user.email])
        assert connection.execute("SELECT id FROM heartguard_core.users").fetchall() == []


def test_auth_sees_what_has_expired_but_moves_it_nowhere(site: Any, org: int, url_for: Callable[[str], str]) -> None:
    expired, living = site.person(org), site.person(org)
    with site.superuser.transaction() as tx:
        tx.execute(
            text(
                "UPDATE heartguard_core.sessions SET access_expires_at = '2000-01-01',"
                " refresh_expires_at = '2000-01-01' WHERE id = :sid"
            ),
            {"sid": expired.sid},
        )
    with psycopg.connect(url_for("auth")) as connection:
        seen = {str(sid) for (sid,) in connection.execute("SELECT id FROM heartguard_core.sessions")}
        assert expired.sid in seen
        assert living.sid not in seen
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            connection.execute("UPDATE heartguard_core.sessions SET ended_at = now() WHERE id = %s", [expired.sid])
