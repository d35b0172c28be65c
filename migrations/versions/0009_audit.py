"""The audit trail: what waits to be recorded, and a chain of events for each organization.

Nobody changes or deletes an event, the owner neither: policies and triggers refuse it. The owner can detach a
whole month of them, which is how they are archived.
"""

from alembic import op

revision = "0009"
down_revision = "0008"

SERVICES = ("auth", "organization", "user", "media", "timeseries", "audit")

OUTBOX = """
-- Events of changes, committed together with them; the audit service takes them from here into their chains.
CREATE TABLE heartguard_core.audit_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event text NOT NULL CHECK (octet_length(event) <= 65536),
    put_at timestamptz NOT NULL DEFAULT now()
) WITH (
    -- Emptied as fast as it is filled, so there is much to clear away and little to keep.
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_analyze_threshold = 100000
)
"""

CHAINS = """
-- The end of each organization's chain; 0 is the platform's. Whoever adds to a chain holds the lock on its row.
CREATE TABLE heartguard_core.audit_chains (
    org_id bigint PRIMARY KEY,
    sequence bigint NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    recorded_at timestamptz NOT NULL,
    -- Up to where there is a signed checkpoint.
    signed bigint NOT NULL DEFAULT 0
)
"""

EVENTS = """
CREATE TABLE heartguard_core.audit_events (
    org_id bigint NOT NULL,
    sequence bigint NOT NULL CHECK (sequence > 0),
    event_id uuid NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    service text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('intent', 'success', 'failure', 'denied', 'unknown')),
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    request_id text,
    -- JSON as it is hashed: jsonb would write it in another way.
    payload text NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (org_id, sequence, recorded_at)
) PARTITION BY RANGE (recorded_at)
"""

EVENT_IDS = """
-- Each event is recorded once, however often and however late it is delivered: its id is known here, in all partitions.
CREATE TABLE heartguard_core.audit_event_ids (event_id uuid PRIMARY KEY)
"""

INTENTS = """
-- Intents whose outcome is not known yet.
CREATE TABLE heartguard_core.audit_intents (
    event_id uuid PRIMARY KEY,
    org_id bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    event text NOT NULL
)
"""

CHECKPOINTS = """
CREATE TABLE heartguard_core.audit_checkpoints (
    org_id bigint NOT NULL,
    sequence bigint NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    signed_at timestamptz NOT NULL,
    key_id text NOT NULL,
    signature bytea NOT NULL CHECK (octet_length(signature) = 64),
    PRIMARY KEY (org_id, sequence)
)
"""

ARCHIVES = """
-- What was archived and taken out: a chain goes on from here.
CREATE TABLE heartguard_core.audit_archives (
    org_id bigint NOT NULL,
    sequence bigint NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    archived_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, sequence)
)
"""

POISON = """
-- What came as an event and is none: kept for whoever looks into it.
CREATE TABLE heartguard_core.audit_poison (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,
    reason text NOT NULL,
    raw bytea NOT NULL,
    put_aside_at timestamptz NOT NULL DEFAULT now()
)
"""

FILTERS = ("actor", "action", "service", "outcome")
INDICES = (
    "CREATE INDEX audit_events_time ON heartguard_core.audit_events (org_id, occurred_at, sequence)",
    *(
        f"CREATE INDEX audit_events_{name} ON heartguard_core.audit_events (org_id, {name}, occurred_at, sequence)"
        for name in FILTERS
    ),
    "CREATE INDEX audit_intents_age ON heartguard_core.audit_intents (recorded_at)",
)

REFUSE = """
CREATE FUNCTION heartguard_core.audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail cannot be altered' USING ERRCODE = 'insufficient_privilege';
END $$
"""

ENSURE_PARTITION = """
-- The partition of the month that p_at lies in.
CREATE FUNCTION heartguard_core.audit_ensure_partition(p_at timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = heartguard_core, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    v_month timestamptz := date_trunc('month', p_at);
    v_name text := 'audit_events_' || to_char(v_month, 'YYYY_MM');
BEGIN
    IF to_regclass('heartguard_core.' || v_name) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE heartguard_core.%I PARTITION OF heartguard_core.audit_events'
                   ' FOR VALUES FROM (%L) TO (%L)', v_name, v_month, v_month + interval '1 month');
    -- Only by way of the whole table, whose policies count there, can anybody see or add anything.
    EXECUTE format('ALTER TABLE heartguard_core.%I ENABLE ROW LEVEL SECURITY', v_name);
    EXECUTE format('ALTER TABLE heartguard_core.%I FORCE ROW LEVEL SECURITY', v_name);
    EXECUTE format('CREATE TRIGGER kept BEFORE TRUNCATE ON heartguard_core.%I'
                   ' EXECUTE FUNCTION heartguard_core.audit_refuse()', v_name);
EXCEPTION WHEN duplicate_table OR unique_violation THEN
    NULL;  -- another process has made it in this very moment
END $$
"""

OWN = "org_id = nullif(current_setting('heartguard.org_id', true), '')::bigint"
OF_AN_ORGANIZATION = ("audit_events", "audit_checkpoints", "audit_archives")
OF_THE_WRITER = ("audit_chains", "audit_intents")
APPEND_ONLY = ("audit_events", "audit_checkpoints", "audit_archives")

GRANTS = (
    "SELECT, DELETE ON heartguard_core.audit_outbox",
    "SELECT, INSERT, UPDATE ON heartguard_core.audit_chains",
    "SELECT, INSERT ON heartguard_core.audit_events",
    "SELECT, INSERT ON heartguard_core.audit_event_ids",
    "SELECT, INSERT, DELETE ON heartguard_core.audit_intents",
    "SELECT, INSERT ON heartguard_core.audit_checkpoints",
    "SELECT ON heartguard_core.audit_archives",
    "SELECT, INSERT (source, reason, raw) ON heartguard_core.audit_poison",
    "EXECUTE ON FUNCTION heartguard_core.audit_ensure_partition(timestamptz)",
)

TABLES = (
    "audit_poison", "audit_archives", "audit_checkpoints", "audit_intents", "audit_event_ids", "audit_events",
    "audit_chains", "audit_outbox",
)  # fmt: skip


def upgrade() -> None:
    for statement in (OUTBOX, CHAINS, EVENTS, EVENT_IDS, INTENTS, CHECKPOINTS, ARCHIVES, POISON, *INDICES):
        op.execute(statement)
    op.execute(REFUSE)
    op.execute(ENSURE_PARTITION)
    for function in ("audit_refuse()", "audit_ensure_partition(timestamptz)"):
        op.execute(f"REVOKE ALL ON FUNCTION heartguard_core.{function} FROM PUBLIC")
    for name in APPEND_ONLY:
        table = f"heartguard_core.{name}"
        refuse = "EXECUTE FUNCTION heartguard_core.audit_refuse()"
        op.execute(f"CREATE TRIGGER kept_rows BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW {refuse}")
        op.execute(f"CREATE TRIGGER kept BEFORE TRUNCATE ON {table} {refuse}")
    for name in (*OF_AN_ORGANIZATION, *OF_THE_WRITER):
        op.execute(f"ALTER TABLE heartguard_core.{name} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE heartguard_core.{name} FORCE ROW LEVEL SECURITY")
    for name in OF_AN_ORGANIZATION:
        op.execute(f"CREATE POLICY own ON heartguard_core.{name} USING ({OWN}) WITH CHECK ({OWN})")
    for name in OF_THE_WRITER:
        # Whoever writes the chains knows where each of them ends, and nothing else of any.
        op.execute(f"CREATE POLICY writer ON heartguard_core.{name} TO heartguard_audit USING (true) WITH CHECK (true)")
    # The owner archives, organization by organization, and has to know which there are.
    op.execute("CREATE POLICY archivist ON heartguard_core.audit_chains FOR SELECT TO CURRENT_USER USING (true)")
    for service in SERVICES:
        op.execute(f"GRANT INSERT (event) ON heartguard_core.audit_outbox TO heartguard_{service}")
    for grant in GRANTS:
        op.execute(f"GRANT {grant} TO heartguard_audit")


def downgrade() -> None:
    for name in TABLES:
        op.execute(f"DROP TABLE heartguard_core.{name}")
    op.execute("DROP FUNCTION heartguard_core.audit_ensure_partition(timestamptz)")
    op.execute("DROP FUNCTION heartguard_core.audit_refuse()")
