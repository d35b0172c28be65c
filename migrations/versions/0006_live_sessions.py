"""A user's living sessions are found without a look at those that have ended."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("CREATE INDEX sessions_live ON heartguard_core.sessions (user_id) WHERE ended_at IS NULL")
    op.execute("DROP INDEX heartguard_core.sessions_user")


def downgrade() -> None:
    op.execute("CREATE INDEX sessions_user ON heartguard_core.sessions (user_id)")
    op.execute("DROP INDEX heartguard_core.sessions_live")
