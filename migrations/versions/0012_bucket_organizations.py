"""Which organizations have buckets: for copying all points from one store to the other, organization by organization.

Their numbers are all that is told, in nobody's transaction. In a request's transaction the policy lets nobody through,
the owner's functions neither; in nobody's they may look, and change no more than before.
"""

from alembic import op

revision = "0012"
down_revision = "0011"

BUCKET_ORGANIZATIONS = """
CREATE FUNCTION heartguard_core.bucket_organizations() RETURNS SETOF bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = heartguard_core, pg_temp AS $$
BEGIN
    -- For this statement only. (A clause of the function's own would need a superuser.)
    PERFORM set_config('heartguard.organizations', 'on', true);
    RETURN QUERY SELECT DISTINCT org_id FROM buckets ORDER BY org_id;
    PERFORM set_config('heartguard.organizations', '', true);
END $$
"""


def upgrade() -> None:
    op.execute(
        "CREATE POLICY organizations ON heartguard_core.buckets FOR SELECT TO CURRENT_USER"
        " USING (current_setting('heartguard.organizations', true) = 'on' AND heartguard_core.org_id() IS NULL)"
    )
    op.execute(BUCKET_ORGANIZATIONS)
    op.execute("REVOKE ALL ON FUNCTION heartguard_core.bucket_organizations() FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION heartguard_core.bucket_organizations() TO heartguard_timeseries")


def downgrade() -> None:
    op.execute("DROP FUNCTION heartguard_core.bucket_organizations()")
    op.execute("DROP POLICY organizations ON heartguard_core.buckets")
