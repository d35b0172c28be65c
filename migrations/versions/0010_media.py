"""Media: what is known of each stored file, and how far its storing or removal has come.

Row and object are made and removed in steps, each of which can be the last one before a crash. A row is ``pending``
from before its object is written until it is, and ``deleting`` from before the object is removed until the row is. The
sweeper finishes what was left, and marks as ``lost`` those whose object has gone without it.
"""

from alembic import op

revision = "0010"
down_revision = "0009"

MEDIA_ITEMS = """
CREATE TABLE heartguard_core.media_items (
    id uuid PRIMARY KEY,
    -- No foreign keys: organizations and users are never deleted, and a token names one that was there.
    org_id integer NOT NULL,
    owner_id integer NOT NULL,
    file_name text NOT NULL,
    -- In the order of bytes, as stores list their objects.
    object_name text COLLATE "C" NOT NULL UNIQUE,
    content_type text NOT NULL,
    size bigint NOT NULL CHECK (size > 0),
    sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'stored', 'deleting', 'lost')),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When it was stored, so that lists are in the order in which items appear.
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (starts_with(object_name, 'org_' || org_id || '/user_' || owner_id || '/' || id || '/'))
)
"""

MEDIA_SWEEPS = """
-- When all rows and objects were last compared: one process does it for all.
CREATE TABLE heartguard_core.media_sweeps (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    begun_at timestamptz NOT NULL
);
INSERT INTO heartguard_core.media_sweeps (begun_at) VALUES ('-infinity')
"""

INDICES = (
    "CREATE INDEX media_items_listed ON heartguard_core.media_items (org_id, created_at DESC, id DESC)"
    " WHERE state = 'stored'",
    "CREATE INDEX media_items_owned ON heartguard_core.media_items (org_id, owner_id, created_at DESC, id DESC)"
    " WHERE state = 'stored'",
    "CREATE INDEX media_items_unfinished ON heartguard_core.media_items (changed_at)"
    " WHERE state IN ('pending', 'deleting')",
)

ISOLATION = (
    "ALTER TABLE heartguard_core.media_items ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE heartguard_core.media_items FORCE ROW LEVEL SECURITY",
    "CREATE POLICY organization ON heartguard_core.media_items USING (org_id = heartguard_core.org_id())",
    # The sweeper looks through all organizations, and then works in one after the other.
    "CREATE POLICY sweeper ON heartguard_core.media_items FOR SELECT TO heartguard_media"
    " USING (current_setting('heartguard.sweeper', true) = 'on')",
)

GRANTS = (
    "SELECT, INSERT (id, org_id, owner_id, file_name, object_name, content_type, size, sha256),"
    " UPDATE (state, changed_at, created_at), DELETE ON heartguard_core.media_items",
    "SELECT, UPDATE (begun_at) ON heartguard_core.media_sweeps",
)


def upgrade() -> None:
    for statement in (MEDIA_ITEMS, MEDIA_SWEEPS, *INDICES, *ISOLATION):
        op.execute(statement)
    for grant in GRANTS:
        op.execute(f"GRANT {grant} TO heartguard_media")


def downgrade() -> None:
    op.execute("DROP TABLE heartguard_core.media_sweeps, heartguard_core.media_items")
