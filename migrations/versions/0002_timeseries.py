"""Time series: buckets, the register of field types, series, and points in partitions.

All DDL at run time (a bucket's partitions) is done by the functions made here, as the owner: the
service itself needs no right to create or drop anything. Names are built from numbers, by format('%I').
"""

from alembic import op

revision = "0002"
down_revision = "0001"

BUCKETS = """
CREATE TABLE heartguard_core.buckets (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- No foreign key: the points may lie in another database than the accounts.
    org_id bigint NOT NULL,
    name text NOT NULL UNIQUE,
    retention_seconds bigint NOT NULL CHECK (retention_seconds = 0 OR retention_seconds >= 3600),
    description text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (name ~ '^[a-z0-9_]{1,64}$'),
    CHECK (name = 'org_' || org_id OR (starts_with(name, 'org_' || org_id || '_') AND name <> 'org_' || org_id || '_'))
)
"""

DROPPED_BUCKETS = """
-- Buckets that are gone and whose remains (series, empty partitions) are still to be cleared away.
CREATE TABLE heartguard_core.dropped_buckets (bucket_id bigint PRIMARY KEY)
"""

FIELDS = """
-- The type of each field, which the first point decides.
CREATE TABLE heartguard_core.fields (
    bucket_id bigint NOT NULL,
    measurement text NOT NULL,
    field text NOT NULL,
    type text NOT NULL CHECK (type IN ('float', 'integer', 'boolean', 'string')),
    PRIMARY KEY (bucket_id, measurement, field)
)
"""

SERIES = """
-- A series is a measurement, a set of tags and one field. Tags can be too long for an index: the digest is the key.
CREATE TABLE heartguard_core.series (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bucket_id bigint NOT NULL,
    measurement text NOT NULL,
    field text NOT NULL,
    tags jsonb NOT NULL,
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    UNIQUE (bucket_id, digest)
)
"""

POINTS = """
-- ts is nanoseconds since the epoch. Exactly one value is set: the one of the field's type.
CREATE TABLE heartguard_core.points (
    bucket_id bigint NOT NULL,
    series_id bigint NOT NULL,
    ts bigint NOT NULL,
    value_float double precision,
    value_int bigint,
    value_bool boolean,
    value_text text,
    PRIMARY KEY (bucket_id, series_id, ts)
) PARTITION BY LIST (bucket_id)
"""

INDICES = (
    "CREATE INDEX buckets_org ON heartguard_core.buckets (org_id)",
    "CREATE INDEX series_measurement ON heartguard_core.series (bucket_id, measurement, field)",
    # Without a pending list, whose length every reader would pay for.
    "CREATE INDEX series_tags ON heartguard_core.series USING gin (tags jsonb_path_ops) WITH (fastupdate = off)",
)

PARTITION_NS = """
-- Nanoseconds that one partition of a bucket spans: an eighth of the retention, at least an hour.
CREATE FUNCTION heartguard_core.partition_ns(retention_seconds bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$ SELECT greatest(3600, (retention_seconds + 7) / 8) * 1000000000 $$
"""

ADD_PARTITION = """
-- Rows of the range that came early and lie in the default partition move over. The lock on the latter comes first:
-- taken after the DELETE it could meet a writer's in a deadlock.
CREATE FUNCTION heartguard_core.add_partition(p_bucket bigint, p_number bigint, p_from bigint, p_to bigint)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = heartguard_core, pg_temp AS $$
DECLARE
    v_parent text := format('points_%s', p_bucket);
    v_default text := format('points_%s_default', p_bucket);
    v_partition text := format('points_%s_%s', p_bucket, p_number);
BEGIN
    EXECUTE format('CREATE TABLE %I (LIKE points INCLUDING INDEXES)', v_partition);
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', v_default);
    EXECUTE format('WITH early AS (DELETE FROM %I WHERE ts >= %L AND ts < %L RETURNING *) '
                   'INSERT INTO %I SELECT * FROM early', v_default, p_from, p_to, v_partition);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   v_parent, v_partition, p_from, p_to);
END $$
"""

ENSURE_PARTITIONS = """
-- Makes the partitions of a bucket from its oldest point to two partitions ahead. Which ones these are depends on the
-- time and the retention only, so no client can bring about more of them; what lies outside goes to the default one.
CREATE FUNCTION heartguard_core.ensure_partitions(p_bucket bigint, p_now bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = heartguard_core, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    v_retention bigint;
    v_span bigint;
BEGIN
    SELECT retention_seconds INTO v_retention FROM buckets WHERE id = p_bucket FOR KEY SHARE;
    IF v_retention IS NULL OR v_retention = 0 THEN
        RETURN;
    END IF;
    v_span := partition_ns(v_retention);
    PERFORM add_partition(p_bucket, n, n * v_span, (n + 1) * v_span)
    FROM generate_series(
        floor((p_now - v_retention * 1000000000)::numeric / v_span)::bigint,
        floor(p_now::numeric / v_span)::bigint + 2
    ) AS n
    WHERE to_regclass(format('%I', format('points_%s_%s', p_bucket, n))) IS NULL;
END $$
"""

CREATE_BUCKET = """
-- The new bucket's id; NULL where the name is taken.
CREATE FUNCTION heartguard_core.create_bucket(
    p_org bigint, p_name text, p_retention bigint, p_description text, p_now bigint
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = heartguard_core, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    v_id bigint;
    v_table text;
BEGIN
    INSERT INTO buckets (org_id, name, retention_seconds, description)
    VALUES (p_org, p_name, p_retention, p_description) ON CONFLICT (name) DO NOTHING RETURNING id INTO v_id;
    IF v_id IS NULL THEN
        RETURN NULL;
    END IF;
    v_table := format('points_%s', v_id);
    -- Made apart and attached: that locks out nobody who reads or writes other buckets.
    IF p_retention = 0 THEN
        EXECUTE format('CREATE TABLE %I (LIKE points INCLUDING INDEXES)', v_table);
    ELSE
        EXECUTE format('CREATE TABLE %I (LIKE points INCLUDING INDEXES) PARTITION BY RANGE (ts)', v_table);
        EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT', v_table || '_default', v_table);
        PERFORM ensure_partitions(v_id, p_now);
    END IF;
    EXECUTE format('ALTER TABLE points ATTACH PARTITION %I FOR VALUES IN (%L)', v_table, v_id);
    RETURN v_id;
END $$
"""

DROP_BUCKET = """
-- Whether there was such a bucket. Its points are gone at once; see purge_dropped for the rest.
CREATE FUNCTION heartguard_core.drop_bucket(p_org bigint, p_name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = heartguard_core, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    v_id bigint;
BEGIN
    DELETE FROM buckets WHERE org_id = p_org AND name = p_name RETURNING id INTO v_id;
    IF v_id IS NULL THEN
        RETURN false;
    END IF;
    INSERT INTO dropped_buckets VALUES (v_id);
    EXECUTE format('TRUNCATE TABLE %I', format('points_%s', v_id));
    RETURN true;
END $$
"""

PURGE_DROPPED = """
-- Clears away remains of dropped buckets, up to p_limit series at a time; whether there are more. Dropping a bucket's
-- partition needs all of points for a moment, so it waits only briefly for its turn and holds up nobody.
CREATE FUNCTION heartguard_core.purge_dropped(p_limit bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = heartguard_core, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    v_id bigint;
    v_gone bigint;
BEGIN
    SELECT bucket_id INTO v_id FROM dropped_buckets ORDER BY bucket_id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF v_id IS NULL THEN
        RETURN false;
    END IF;
    DELETE FROM series WHERE id IN (SELECT id FROM series WHERE bucket_id = v_id LIMIT p_limit);
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    IF v_gone < p_limit THEN
        DELETE FROM fields WHERE bucket_id = v_id;
        EXECUTE format('DROP TABLE IF EXISTS %I', format('points_%s', v_id));
        DELETE FROM dropped_buckets WHERE bucket_id = v_id;
    END IF;
    RETURN true;
END $$
"""

EXPIRE = """
-- Drops the partitions of a bucket whose points have all expired, and deletes up to p_limit expired ones from the
-- default partition. The other partitions keep expired points until they expire as a whole: readers leave those out.
CREATE FUNCTION heartguard_core.expire(p_bucket bigint, p_now bigint, p_limit bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = heartguard_core, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    v_retention bigint;
    v_oldest bigint;
    v_partition text;
    v_dropped bigint := 0;
    v_default text := format('points_%s_default', p_bucket);
BEGIN
    SELECT retention_seconds INTO v_retention FROM buckets WHERE id = p_bucket FOR KEY SHARE;
    IF v_retention IS NULL OR v_retention = 0 THEN
        RETURN 0;
    END IF;
    v_oldest := p_now - v_retention * 1000000000;
    FOR v_partition IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = format('points_%s', p_bucket)::regclass AND c.relname <> v_default
          -- A cast can run before the other conditions are looked at, on names that end in no number: hence CASE.
          AND CASE WHEN c.relname ~ '^points_[0-9]+_-?[0-9]+$'
              THEN (split_part(c.relname, '_', 3)::bigint + 1) * partition_ns(v_retention) <= v_oldest END
    LOOP
        EXECUTE format('DROP TABLE %I', v_partition);
        v_dropped := v_dropped + 1;
    END LOOP;
    EXECUTE format('DELETE FROM %I WHERE ctid IN (SELECT ctid FROM %I WHERE ts < %L LIMIT %L)',
                   v_default, v_default, v_oldest, p_limit);
    RETURN v_dropped;
END $$
"""

FUNCTIONS = (PARTITION_NS, ADD_PARTITION, ENSURE_PARTITIONS, CREATE_BUCKET, DROP_BUCKET, PURGE_DROPPED, EXPIRE)
SIGNATURES = (
    "expire(bigint, bigint, bigint)",
    "purge_dropped(bigint)",
    "drop_bucket(bigint, text)",
    "create_bucket(bigint, text, bigint, text, bigint)",
    "ensure_partitions(bigint, bigint)",
    "add_partition(bigint, bigint, bigint, bigint)",
    "partition_ns(bigint)",
)
TABLES = ("points", "series", "fields", "dropped_buckets", "buckets")


def upgrade() -> None:
    for statement in (BUCKETS, DROPPED_BUCKETS, FIELDS, SERIES, POINTS, *INDICES, *FUNCTIONS):
        op.execute(statement)
    for signature in SIGNATURES:
        op.execute(f"REVOKE ALL ON FUNCTION heartguard_core.{signature} FROM PUBLIC")


def downgrade() -> None:
    for signature in SIGNATURES:
        op.execute(f"DROP FUNCTION heartguard_core.{signature}")
    for table in TABLES:
        op.execute(f"DROP TABLE heartguard_core.{table}")
