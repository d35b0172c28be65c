"""What it takes to sign a refresh token's successor again, for a client that did not get it the first time."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # Tokens issued before have neither: a retry with one of those signs in anew, which is no more than it was.
    op.execute("ALTER TABLE heartguard_core.refresh_tokens ADD COLUMN role text, ADD COLUMN kid text")


def downgrade() -> None:
    op.execute("ALTER TABLE heartguard_core.refresh_tokens DROP COLUMN role, DROP COLUMN kid")
