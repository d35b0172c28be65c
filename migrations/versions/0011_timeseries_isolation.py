"""Row-level security for time series: buckets, fields, series and points are one organization's only.

The bucket is what belongs to an organization; everything else belongs to a bucket. So a transaction sees, and may
write, what lies in the buckets of the organization that it named.

Points are COPYed, which PostgreSQL refuses on a table with row-level security. So they are copied into the partition of
their bucket, where a trigger asks once a statement whose bucket that is; the partition itself lets in no other bucket's
points. Reading and replacing go through ``points`` and its policy, as nobody may read a partition.

The owner's functions are held to it too, but for series: to find some by their tags an index is needed that PostgreSQL
does not use beneath a policy (``@>`` is not leakproof). ``choose_series`` alone looks for tags, in a bucket that it
finds in ``buckets``, which is held. Sweeping, which concerns all, is for the owner's functions in nobody's transaction.
"""

from alembic import op

revision = "0011"
down_revision = "0010"

ROLE = "heartguard_timeseries"

IN_OWN_BUCKET = (
    "bucket_id = ANY (ARRAY (SELECT id FROM heartguard_core.buckets b WHERE b.org_id = heartguard_core.org_id()))"
)
"""Once a statement, and not once a row: the planner takes the buckets first, and the rows by their primary key."""

POLICIES = (
    "organization ON heartguard_core.buckets USING (org_id = heartguard_core.org_id())",
    f"organization ON heartguard_core.fields USING ({IN_OWN_BUCKET})",
    f"organization ON heartguard_core.series USING ({IN_OWN_BUCKET})",
    f"organization ON heartguard_core.points USING ({IN_OWN_BUCKET})",
    # Sweeping: to see the buckets that expire, to lock and mark them.
    "sweep_select ON heartguard_core.buckets FOR SELECT TO CURRENT_USER"
    " USING (retention_seconds > 0 AND heartguard_core.org_id() IS NULL)",
    "sweep_update ON heartguard_core.buckets FOR UPDATE TO CURRENT_USER"
    " USING (retention_seconds > 0 AND heartguard_core.org_id() IS NULL)",
    # Whether a series still has points.
    "sweep ON heartguard_core.points FOR SELECT TO CURRENT_USER USING (heartguard_core.org_id() IS NULL)",
    "dropped ON heartguard_core.fields TO CURRENT_USER"
    " USING (bucket_id IN (SELECT d.bucket_id FROM heartguard_core.dropped_buckets d)) WITH CHECK (false)",
)
FORCED = ("buckets", "fields", "points")
TABLES = (*FORCED, "series")

CHECK_BUCKET = """
-- Before rows are put straight into a bucket's partition; the argument is the bucket.
CREATE FUNCTION heartguard_core.check_bucket() RETURNS trigger
LANGUAGE plpgsql SET search_path = heartguard_core, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM buckets b WHERE b.id = TG_ARGV[0]::bigint AND b.org_id = org_id()) THEN
        RAISE insufficient_privilege USING MESSAGE = format('%s is not of the organization', TG_TABLE_NAME);
    END IF;
    RETURN NULL;
END $$
"""

OPEN_PARTITION = f"""
-- Lets the service put points straight into a bucket's partition.
CREATE FUNCTION heartguard_core.open_partition(p_bucket bigint) RETURNS void
LANGUAGE plpgsql SET search_path = heartguard_core, pg_temp AS $$
DECLARE
    v_table text := format('points_%s', p_bucket);
BEGIN
    EXECUTE format('CREATE TRIGGER check_bucket BEFORE INSERT ON %I FOR EACH STATEMENT'
                   ' EXECUTE FUNCTION check_bucket(%L)', v_table, p_bucket);
    EXECUTE format('GRANT INSERT ON %I TO {ROLE}', v_table);
END $$
"""

EXPIRING_BUCKETS = """
-- Those of all organizations, for the sweep.
CREATE FUNCTION heartguard_core.expiring_buckets() RETURNS SETOF bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = heartguard_core, pg_temp AS $$
    SELECT id FROM buckets WHERE retention_seconds > 0 ORDER BY id
$$
"""

CHOOSE_SERIES = """
-- The series of a measurement with these fields and tags (NULL: with any); a row without one where there are none, no
-- row where the organization has no such bucket.
CREATE FUNCTION heartguard_core.choose_series(
    p_bucket bigint, p_measurement text, p_fields text[], p_tags jsonb, p_limit bigint
) RETURNS TABLE (id bigint, field text, type text, tags jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = heartguard_core, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT s.id, s.field, f.type, s.tags
    FROM buckets b
    LEFT JOIN series s ON s.bucket_id = b.id AND s.measurement = p_measurement
        AND (p_fields IS NULL OR s.field = ANY (p_fields)) AND (p_tags IS NULL OR s.tags @> p_tags)
    LEFT JOIN fields f ON f.bucket_id = s.bucket_id AND f.measurement = s.measurement AND f.field = s.field
    WHERE b.id = p_bucket AND b.org_id = org_id()
    LIMIT p_limit;
END $$
"""

NEW_FUNCTIONS = (CHECK_BUCKET, OPEN_PARTITION, EXPIRING_BUCKETS, CHOOSE_SERIES)
SIGNATURES = (
    "check_bucket()",
    "open_partition(bigint)",
    "expiring_buckets()",
    "choose_series(bigint, text, text[], jsonb, bigint)",
)

# In the function that makes buckets, as it is now.
BUCKETS_TO_COME = """
DO $$
DECLARE
    v_function regprocedure := 'heartguard_core.create_bucket(bigint, text, bigint, text, bigint)';
    v_now text := pg_get_functiondef(v_function);
    v_new text := replace(v_now, $old${old}$old$, $new${new}$new$);
BEGIN
    ASSERT v_new <> v_now, v_function || ' is not what it was';
    EXECUTE v_new;
END $$
"""
RETURN = "    RETURN v_id;\n"
OPEN_AND_RETURN = "    PERFORM open_partition(v_id);\n" + RETURN

CLOSE_PARTITIONS = """
DO $$
DECLARE
    v_partition regclass;
BEGIN
    FOR v_partition IN SELECT tgrelid FROM pg_trigger WHERE tgfoid = 'heartguard_core.check_bucket()'::regprocedure LOOP
        EXECUTE format('DROP TRIGGER check_bucket ON %s', v_partition);
        EXECUTE format('REVOKE INSERT ON %s FROM heartguard_timeseries', v_partition);
    END LOOP;
END $$
"""


def upgrade() -> None:
    for statement in NEW_FUNCTIONS:
        op.execute(statement)
    for signature in SIGNATURES:
        op.execute(f"REVOKE ALL ON FUNCTION heartguard_core.{signature} FROM PUBLIC")
    for signature in SIGNATURES[2:]:
        op.execute(f"GRANT EXECUTE ON FUNCTION heartguard_core.{signature} TO {ROLE}")
    op.execute("SELECT heartguard_core.open_partition(id) FROM heartguard_core.buckets")
    op.execute(BUCKETS_TO_COME.format(old=RETURN, new=OPEN_AND_RETURN))
    # Tags are read by choose_series alone.
    op.execute("REVOKE SELECT ON heartguard_core.series FROM heartguard_timeseries")
    op.execute(f"GRANT SELECT (id, bucket_id, digest) ON heartguard_core.series TO {ROLE}")
    for policy in POLICIES:
        op.execute(f"CREATE POLICY {policy}")
    for table in TABLES:
        op.execute(f"ALTER TABLE heartguard_core.{table} ENABLE ROW LEVEL SECURITY")
    for table in FORCED:
        op.execute(f"ALTER TABLE heartguard_core.{table} FORCE ROW LEVEL SECURITY")


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE heartguard_core.{table} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY")
    for policy in POLICIES:
        op.execute(f"DROP POLICY {' '.join(policy.split()[:3])}")
    op.execute("REVOKE SELECT ON heartguard_core.series FROM heartguard_timeseries")
    op.execute(f"GRANT SELECT ON heartguard_core.series TO {ROLE}")
    op.execute(BUCKETS_TO_COME.format(old=OPEN_AND_RETURN, new=RETURN))
    op.execute(CLOSE_PARTITIONS)
    for signature in reversed(SIGNATURES):
        op.execute(f"DROP FUNCTION heartguard_core.{signature}")
