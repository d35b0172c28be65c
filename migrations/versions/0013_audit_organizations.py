"""Whose an event of the trail is, kept apart from what somebody says in it.

An event's id is its organization's own: another may use the same, and what one records is in no other's way.
Ids from before are those of all organizations (-1), as which of them used one is not known once it is archived.
"""

from alembic import op

revision = "0013"
down_revision = "0012"

OF_ALL = -1

KEYED = ("audit_event_ids", "audit_intents")

UPGRADE = (
    # An audit service that is still the former one goes on as it did.
    f"ALTER TABLE heartguard_core.audit_event_ids ADD COLUMN org_id bigint NOT NULL DEFAULT {OF_ALL}",
    *(f"ALTER TABLE heartguard_core.{table} DROP CONSTRAINT {table}_pkey" for table in KEYED),
    *(f"ALTER TABLE heartguard_core.{table} ADD PRIMARY KEY (event_id, org_id)" for table in KEYED),
    "ALTER TABLE heartguard_core.audit_event_ids ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    "CREATE POLICY writer ON heartguard_core.audit_event_ids TO heartguard_audit USING (true) WITH CHECK (true)",
    "GRANT INSERT (org_id) ON heartguard_core.audit_event_ids TO heartguard_audit",
)

DOWNGRADE = (
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
