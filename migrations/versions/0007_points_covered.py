"""Windows over floats are read from the index alone.

The primary key carries the float along, so that a range of a series lies together, however scattered its rows are in
the table. The rows themselves need no look once VACUUM has marked their pages as visible to all. By default it comes
when a table has grown by a fifth; here it comes every 50,000 rows, which costs little, as it reads new pages only.
"""

from alembic import op

revision = "0007"
down_revision = "0006"

PRIMARY_KEY = """
ALTER TABLE heartguard_core.points DROP CONSTRAINT points_pkey, ADD PRIMARY KEY (bucket_id, series_id, ts) {include}
"""

VACUUM = "autovacuum_vacuum_insert_threshold = 50000, autovacuum_vacuum_insert_scale_factor = 0"

PARTITIONS_THERE_ARE = """
DO $$
DECLARE
    v_partition regclass;
BEGIN
    FOR v_partition IN SELECT relid FROM pg_partition_tree('heartguard_core.points') WHERE isleaf LOOP
        EXECUTE format('ALTER TABLE %s {change}', v_partition);
    END LOOP;
END $$
"""

# In the functions that make tables of points, as they are now.
PARTITIONS_TO_COME = """
DO $$
DECLARE
    v_function regprocedure;
    v_now text;
    v_new text;
BEGIN
    FOREACH v_function IN ARRAY ARRAY[
        'heartguard_core.add_partition(bigint, bigint, bigint, bigint)',
        'heartguard_core.create_bucket(bigint, text, bigint, text, bigint)'
    ]::regprocedure[] LOOP
        v_now := pg_get_functiondef(v_function);
        v_new := replace(v_now, $old${old}$old$, $new${new}$new$);
        ASSERT v_new <> v_now, v_function || ' is not what it was';
        EXECUTE v_new;
    END LOOP;
END $$
"""
PLAIN = "(LIKE points INCLUDING INDEXES)'"
WITH_VACUUM = f"(LIKE points INCLUDING INDEXES) WITH ({VACUUM})'"


def upgrade() -> None:
    op.execute("SET LOCAL statement_timeout = '1h'")  # the index is built anew
    op.execute(PRIMARY_KEY.format(include="INCLUDE (value_float)"))
    op.execute(PARTITIONS_THERE_ARE.format(change=f"SET ({VACUUM})"))
    op.execute(PARTITIONS_TO_COME.format(old=PLAIN, new=WITH_VACUUM))


def downgrade() -> None:
    op.execute("SET LOCAL statement_timeout = '1h'")
    op.execute(PRIMARY_KEY.format(include=""))
    op.execute(
        PARTITIONS_THERE_ARE.format(
            change="RESET (autovacuum_vacuum_insert_threshold, autovacuum_vacuum_insert_scale_factor)"
        )
    )
    op.execute(PARTITIONS_TO_COME.format(old=WITH_VACUUM, new=PLAIN))
