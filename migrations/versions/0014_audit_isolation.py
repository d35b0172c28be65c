"""The ends of chains, and open intents, are seen by the transactions that need them, and by no other organization's.

Until now the audit service saw them all in any transaction. Whoever writes names the organization whose chain it adds
to, before it looks for the chain's end; which chains have grown, and all intents, are for nobody's transaction.
"""

from alembic import op

revision = "0014"
down_revision = "0013"

SETTING = "nullif(current_setting('heartguard.org_id', true), '')"
OWN = f"org_id = {SETTING}::bigint"
NOBODYS = f"{SETTING} IS NULL"

POLICIES = (
    f"own ON heartguard_core.audit_chains TO heartguard_audit USING ({OWN}) WITH CHECK ({OWN})",
    f"sweep ON heartguard_core.audit_chains FOR SELECT TO heartguard_audit USING ({NOBODYS})",
    f"writer ON heartguard_core.audit_intents TO heartguard_audit USING ({NOBODYS}) WITH CHECK ({NOBODYS})",
)
WRITER = ("audit_chains", "audit_intents")


def upgrade() -> None:
    for table in WRITER:
        op.execute(f"DROP POLICY writer ON heartguard_core.{table}")
    for policy in POLICIES:
        op.execute(f"CREATE POLICY {policy}")


def downgrade() -> None:
    for policy in POLICIES:
        op.execute(f"DROP POLICY {' '.join(policy.split()[:3])}")
    for table in WRITER:
        op.execute(
            f"CREATE POLICY writer ON heartguard_core.{table} TO heartguard_audit USING (true) WITH CHECK (true)"
        )
