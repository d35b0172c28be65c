"""Each service's own database role, with just the rights it needs; and where a user's preferences are kept.

Roles belong to the whole cluster, so they may be there already: made by the operator, or for another database. They
cannot sign in before ``heartguard migrate`` gives them a password. What a later table lets a role do is granted by the
migration that makes it.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

SCHEMA = "heartguard_core"
ROLES = ("auth", "organization", "user", "media", "timeseries", "audit")

CREATE_ROLE = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'heartguard_{name}') THEN
        CREATE ROLE heartguard_{name} NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- made for another database in this very moment
END $$
"""

# Nobody who is not named gets in. An operator whose migrations do not run as the database's owner sees to that himself.
CLOSE_DATABASE = """
DO $$
DECLARE
    v_database text := current_database();
BEGIN
    IF (SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = v_database) THEN
        EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', v_database);
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO heartguard_auth, heartguard_organization, heartguard_user,'
                       ' heartguard_media, heartguard_timeseries, heartguard_audit', v_database);
        -- Batches are sorted in a temporary table.
        EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO heartguard_timeseries', v_database);
    END IF;
END $$
"""

USER_PREFERENCES = """
CREATE TABLE heartguard_core.user_preferences (
    user_id integer PRIMARY KEY REFERENCES heartguard_core.users ON DELETE CASCADE,
    org_id integer NOT NULL REFERENCES heartguard_core.organizations,
    preferences jsonb NOT NULL CHECK (jsonb_typeof(preferences) = 'object')
)
"""

GRANTS = {
    "auth": (
        "SELECT (id), INSERT (id, name) ON heartguard_core.organizations",
        "SELECT (id, org_id, email, password_hash, role, first_name, last_name, created_at, last_login_at, deleted_at),"
        " INSERT (org_id, email, password_hash, role, first_name, last_name),"
        " UPDATE (password_hash, updated_at, last_login_at) ON heartguard_core.users",
        "SELECT, INSERT (id, user_id, ip, user_agent, access_expires_at),"
        " UPDATE (last_used_at, access_expires_at, ended_at), DELETE ON heartguard_core.sessions",
        "SELECT, INSERT (jti, session_id, token_hash, issued_at, expires_at, role, kid),"
        " UPDATE (used_at, replaced_by), DELETE ON heartguard_core.refresh_tokens",
        "SELECT, INSERT (kind, id, expires_at), UPDATE (published), DELETE ON heartguard_core.revoked_tokens",
    ),
    "organization": (
        "SELECT, UPDATE (name, policies, contact_email, timezone, updated_at) ON heartguard_core.organizations",
    ),
    "user": (
        "SELECT (id, org_id, email, role, first_name, last_name, created_at, updated_at, deleted_at),"
        " UPDATE (role, first_name, last_name, updated_at, deleted_at) ON heartguard_core.users",
        "SELECT, INSERT, UPDATE (preferences), DELETE ON heartguard_core.user_preferences",
        # Whoever is demoted or deleted is signed out.
        "SELECT (id, user_id, access_expires_at, ended_at), UPDATE (ended_at) ON heartguard_core.sessions",
        "SELECT (kind, id), INSERT (kind, id, expires_at) ON heartguard_core.revoked_tokens",
    ),
    "media": (),
    "timeseries": (
        # A row can be locked only by who may update a column of it: hence the description.
        "SELECT, UPDATE (description) ON heartguard_core.buckets",
        "SELECT, INSERT ON heartguard_core.fields",
        "SELECT, INSERT (bucket_id, measurement, field, tags, digest) ON heartguard_core.series",
        "SELECT, INSERT, UPDATE (value_float, value_int, value_bool, value_text) ON heartguard_core.points",
        "EXECUTE ON FUNCTION heartguard_core.create_bucket(bigint, text, bigint, text, bigint)",
        "EXECUTE ON FUNCTION heartguard_core.drop_bucket(bigint, text)",
        "EXECUTE ON FUNCTION heartguard_core.ensure_partitions(bigint, bigint)",
        "EXECUTE ON FUNCTION heartguard_core.expire(bigint, bigint, bigint)",
        "EXECUTE ON FUNCTION heartguard_core.forget_series(bigint, bigint)",
        "EXECUTE ON FUNCTION heartguard_core.purge_dropped(bigint)",
    ),
    "audit": (),
}  # fmt: skip
"""Columns of their own only where some are not to be had."""


def upgrade() -> None:
    op.execute(USER_PREFERENCES)
    for name in ROLES:
        op.execute(CREATE_ROLE.format(name=name))
        op.execute(f"GRANT USAGE ON SCHEMA {SCHEMA} TO heartguard_{name}")
    op.execute(CLOSE_DATABASE)
    for name, grants in GRANTS.items():
        for grant in grants:
            op.execute(f"GRANT {grant} TO heartguard_{name}")


def downgrade() -> None:
    """The roles stay: they may have rights in other databases."""
    for name in ROLES:
        for what in ("ALL TABLES IN SCHEMA", "ALL FUNCTIONS IN SCHEMA", "SCHEMA"):
            op.execute(f"REVOKE ALL ON {what} {SCHEMA} FROM heartguard_{name}")
    op.execute(f"DROP TABLE {SCHEMA}.user_preferences")
