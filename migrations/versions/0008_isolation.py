"""Row-level security: whatever a service asks, PostgreSQL shows it one organization's rows.

A transaction says which (``heartguard.org_id``); without it nothing is visible, to the owner neither. Auth has to find
a user by the address alone, and to clear away what has expired in every organization: policies of its own let through
just that row, and just those.

Sessions remember until when a refresh token of theirs can be good. To see that none is left of a session one would
have to see all tokens.
"""

from alembic import op

revision = "0008"
down_revision = "0007"

ORG_ID = """
-- The transaction's organization; NULL where it has not said. (Once set in a session, a setting goes back to ''.)
CREATE FUNCTION heartguard_core.org_id() RETURNS integer
LANGUAGE sql STABLE AS $$ SELECT nullif(current_setting('heartguard.org_id', true), '')::integer $$
"""

COLUMNS = (
    "ALTER TABLE heartguard_core.sessions ADD COLUMN org_id integer REFERENCES heartguard_core.organizations,"
    " ADD COLUMN refresh_expires_at timestamptz",
    "ALTER TABLE heartguard_core.refresh_tokens ADD COLUMN org_id integer REFERENCES heartguard_core.organizations",
    "UPDATE heartguard_core.sessions s SET org_id = u.org_id, refresh_expires_at = coalesce("
    "(SELECT max(t.expires_at) FROM heartguard_core.refresh_tokens t WHERE t.session_id = s.id), s.access_expires_at)"
    " FROM heartguard_core.users u WHERE u.id = s.user_id",
    "UPDATE heartguard_core.refresh_tokens t SET org_id = s.org_id FROM heartguard_core.sessions s"
    " WHERE s.id = t.session_id",
    "ALTER TABLE heartguard_core.sessions ALTER COLUMN org_id SET NOT NULL,"
    " ALTER COLUMN org_id SET DEFAULT heartguard_core.org_id(), ALTER COLUMN refresh_expires_at SET NOT NULL",
    "ALTER TABLE heartguard_core.refresh_tokens ALTER COLUMN org_id SET NOT NULL,"
    " ALTER COLUMN org_id SET DEFAULT heartguard_core.org_id()",
    # Pages of an organization's living users, newest first.
    "CREATE INDEX users_page ON heartguard_core.users (org_id, id DESC) WHERE deleted_at IS NULL",
)

OWNED = {
    "organizations": "id",
    "users": "org_id",
    "user_preferences": "org_id",
    "sessions": "org_id",
    "refresh_tokens": "org_id",
}
"""Tables that belong to an organization, and the column that says to which."""

POLICIES = (
    "CREATE POLICY by_email ON heartguard_core.users FOR SELECT TO heartguard_auth"
    " USING (email = current_setting('heartguard.email', true) AND deleted_at IS NULL)",
    "CREATE POLICY expired ON heartguard_core.refresh_tokens TO heartguard_auth"
    " USING (expires_at < now()) WITH CHECK (false)",
    "CREATE POLICY expired ON heartguard_core.sessions TO heartguard_auth"
    " USING (access_expires_at < now() - interval '1 minute' AND refresh_expires_at < now()) WITH CHECK (false)",
)

GRANTS = (
    "INSERT (refresh_expires_at), UPDATE (refresh_expires_at) ON heartguard_core.sessions TO heartguard_auth",
    # A new organization's number has to be known before its row can be seen.
    "USAGE ON SEQUENCE heartguard_core.organizations_id_seq TO heartguard_auth",
)


def upgrade() -> None:
    op.execute(ORG_ID)
    for statement in COLUMNS:
        op.execute(statement)
    for table, column in OWNED.items():
        op.execute(f"CREATE POLICY organization ON heartguard_core.{table} USING ({column} = heartguard_core.org_id())")
        op.execute(f"ALTER TABLE heartguard_core.{table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    for policy in POLICIES:
        op.execute(policy)
    for grant in GRANTS:
        op.execute(f"GRANT {grant}")


def downgrade() -> None:
    op.execute("REVOKE ALL ON SEQUENCE heartguard_core.organizations_id_seq FROM heartguard_auth")
    for table, policy in (("users", "by_email"), ("refresh_tokens", "expired"), ("sessions", "expired")):
        op.execute(f"DROP POLICY {policy} ON heartguard_core.{table}")
    for table in OWNED:
        op.execute(f"ALTER TABLE heartguard_core.{table} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY")
        op.execute(f"DROP POLICY organization ON heartguard_core.{table}")
    op.execute("DROP INDEX heartguard_core.users_page")
    op.execute("ALTER TABLE heartguard_core.refresh_tokens DROP COLUMN org_id")
    op.execute("ALTER TABLE heartguard_core.sessions DROP COLUMN org_id, DROP COLUMN refresh_expires_at")
    op.execute("DROP FUNCTION heartguard_core.org_id()")
