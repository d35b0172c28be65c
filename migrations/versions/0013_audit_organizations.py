"""Whose an event of the trail is, kept apart from what somebody says in it.

What a service puts into the outbox is an event of the transaction's organization and of the service that signed in, and
neither is for it to say: both are filled in where they are not granted. So a transaction without an organization puts
in nothing. (The platform's events come by the stream.) Services that are still the former ones do it right as they are.

An event's id is its organization's own: another may use the same, and what one records is in no other's way.
Ids from before are those of all organizations (-1), as which of them used one is not known once it is archived.
"""

from alembic import op

revision = "0013"
down_revision = "0012"

OF_ALL = -1

KEYED = ("audit_event_ids", "audit_intents")

UPGRADE = (
    # NULL is what is waiting there from before.
    "ALTER TABLE heartguard_core.audit_outbox ADD COLUMN org_id bigint, ADD COLUMN service text",
    "ALTER TABLE heartguard_core.audit_outbox ALTER COLUMN org_id SET DEFAULT heartguard_core.org_id(),"
    " ALTER COLUMN service SET DEFAULT regexp_replace(session_user, '^heartguard_', '')",
    "ALTER TABLE heartguard_core.audit_outbox ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    "CREATE POLICY organization ON heartguard_core.audit_outbox FOR INSERT"
    " WITH CHECK (org_id = heartguard_core.org_id() AND org_id > 0)",
    "CREATE POLICY seen ON heartguard_core.audit_outbox FOR SELECT TO heartguard_audit USING (true)",
    "CREATE POLICY taken ON heartguard_core.audit_outbox FOR DELETE TO heartguard_audit USING (true)",
    # Whose it is where that is known, else the platform's.
    "ALTER TABLE heartguard_core.audit_poison ADD COLUMN org_id bigint NOT NULL DEFAULT 0",
    "ALTER TABLE heartguard_core.audit_poison ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    "CREATE POLICY own ON heartguard_core.audit_poison USING (org_id = heartguard_core.org_id())",
    "CREATE POLICY writer ON heartguard_core.audit_poison TO heartguard_audit USING (true) WITH CHECK (true)",
    "GRANT INSERT (org_id) ON heartguard_core.audit_poison TO heartguard_audit",
    # An audit service that is still the former one goes on as it did.
    f"ALTER TABLE heartguard_core.audit_event_ids ADD COLUMN org_id bigint NOT NULL DEFAULT {OF_ALL}",
    *(f"ALTER TABLE heartguard_core.{table} DROP CONSTRAINT {table}_pkey" for table in KEYED),
    *(f"ALTER TABLE heartguard_core.{table} ADD PRIMARY KEY (event_id, org_id)" for table in KEYED),
    "ALTER TABLE heartguard_core.audit_event_ids ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    "CREATE POLICY writer ON heartguard_core.audit_event_ids TO heartguard_audit USING (true) WITH CHECK (true)",
    "GRANT INSERT (org_id) ON heartguard_core.audit_event_ids TO heartguard_audit",
)

DOWNGRADE = (
    *(f"DROP POLICY {policy} ON heartguard_core.audit_outbox" for policy in ("organization", "seen", "taken")),
    *(f"DROP POLICY {policy} ON heartguard_core.audit_poison" for policy in ("own", "writer")),
    *(
        f"ALTER TABLE heartguard_core.{table} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY"
        for table in ("audit_outbox", "audit_poison")
    ),
    "ALTER TABLE heartguard_core.audit_outbox DROP COLUMN org_id, DROP COLUMN service",
    "ALTER TABLE heartguard_core.audit_poison DROP COLUMN org_id",
    "DROP POLICY writer ON heartguard_core.audit_event_ids",
    "ALTER TABLE heartguard_core.audit_event_ids DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",
    "ALTER TABLE heartguard_core.audit_intents NO FORCE ROW LEVEL SECURITY",
    "DELETE FROM heartguard_core.audit_event_ids a USING heartguard_core.audit_event_ids b"
    " WHERE a.event_id = b.event_id AND a.org_id > b.org_id",
    "DELETE FROM heartguard_core.audit_intents a USING heartguard_core.audit_intents b"
    " WHERE a.event_id = b.event_id AND a.org_id > b.org_id",
    "ALTER TABLE heartguard_core.audit_intents FORCE ROW LEVEL SECURITY",
    *(f"ALTER TABLE heartguard_core.{table} DROP CONSTRAINT {table}_pkey" for table in KEYED),
    *(f"ALTER TABLE heartguard_core.{table} ADD PRIMARY KEY (event_id)" for table in KEYED),
    "ALTER TABLE heartguard_core.audit_event_ids DROP COLUMN org_id",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
