"""Series whose points have all expired are cleared away.

A writer that remembers a series' id must not go on using it then. So every clearing counts up the
bucket's ``series_epoch``, under a lock that waits for the writers at work in the bucket and holds
up the next ones: they read the epoch first, and what they remember of an older one they ask anew.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

COLUMNS = """
ALTER TABLE heartguard_core.buckets
    ADD COLUMN series_epoch bigint NOT NULL DEFAULT 0,
    -- Up to where the last round looked, in the order of digests.
    ADD COLUMN series_looked_at bytea NOT NULL DEFAULT ''
"""

FORGET_SERIES = """
-- Looks at the next p_limit series of a bucket and deletes those without points; how many. Writers are held up only
-- where there are any, and only for as long as it takes to make sure of these.
CREATE FUNCTION heartguard_core.forget_series(p_bucket bigint, p_limit bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = heartguard_core, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    v_from bytea;
    v_to bytea;
    v_looked_at bigint;
    v_empty bigint[];
    v_gone bigint := 0;
BEGIN
    SELECT series_looked_at INTO v_from FROM buckets WHERE id = p_bucket AND retention_seconds > 0;
    IF v_from IS NULL THEN
        RETURN 0;
    END IF;
    WITH looked_at AS MATERIALIZED (
        SELECT id, digest FROM series WHERE bucket_id = p_bucket AND digest > v_from ORDER BY digest LIMIT p_limit
    )
    SELECT count(*), max(digest),
           array_agg(id) FILTER (WHERE NOT EXISTS (
               SELECT FROM points p WHERE p.bucket_id = p_bucket AND p.series_id = looked_at.id))
    INTO v_looked_at, v_to, v_empty FROM looked_at;
    IF v_empty IS NOT NULL THEN
        PERFORM FROM buckets WHERE id = p_bucket FOR UPDATE;
        DELETE FROM series s WHERE s.id = ANY(v_empty) AND NOT EXISTS (
            SELECT FROM points p WHERE p.bucket_id = p_bucket AND p.series_id = s.id);
        GET DIAGNOSTICS v_gone = ROW_COUNT;
    END IF;
    UPDATE buckets
    SET series_epoch = series_epoch + (v_gone > 0)::int,
        series_looked_at = CASE WHEN v_looked_at < p_limit THEN '' ELSE v_to END
    WHERE id = p_bucket AND (v_gone > 0 OR v_looked_at = p_limit OR v_from <> '');
    RETURN v_gone;
END $$
"""


def upgrade() -> None:
    op.execute(COLUMNS)
    op.execute(FORGET_SERIES)
    op.execute("REVOKE ALL ON FUNCTION heartguard_core.forget_series(bigint, bigint) FROM PUBLIC")


def downgrade() -> None:
    op.execute("DROP FUNCTION heartguard_core.forget_series(bigint, bigint)")
    op.execute("ALTER TABLE heartguard_core.buckets DROP COLUMN series_epoch, DROP COLUMN series_looked_at")
