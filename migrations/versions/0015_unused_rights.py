"""Rights that no code uses: preferences are never deleted, and a chain never becomes another organization's."""

from alembic import op

revision = "0015"
down_revision = "0014"

CHANGES = (
    ("DELETE ON heartguard_core.user_preferences", "heartguard_user"),
    ("UPDATE ON heartguard_core.audit_chains", "heartguard_audit"),
)
KEPT = "UPDATE (sequence, hash, recorded_at, signed) ON heartguard_core.audit_chains"


def upgrade() -> None:
    for right, role in CHANGES:
        op.execute(f"REVOKE {right} FROM {role}")
    op.execute(f"GRANT {KEPT} TO heartguard_audit")


def downgrade() -> None:
    op.execute(f"REVOKE {KEPT} FROM heartguard_audit")
    for right, role in CHANGES:
        op.execute(f"GRANT {right} TO {role}")
