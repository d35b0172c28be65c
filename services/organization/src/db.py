"""All SQL of the organization service."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from heartguard.models.base import UNSET
from heartguard.models.organization import OrganizationUpdate


class Stored(NamedTuple):
    """A row, in the order in which the columns are always selected."""

    id: int
    name: str
    policies: str
    contact_email: str | None
    timezone: str | None
    created_at: datetime
    updated_at: datetime


_FIND = text("""
    SELECT id, name, policies, contact_email, timezone, created_at, updated_at
    FROM heartguard_core.organizations WHERE id = :org_id
""")
_LOCK = text(f"{_FIND} FOR NO KEY UPDATE")
# No two states have the same time, so that none passes for another.
_UPDATE = text("""
    UPDATE heartguard_core.organizations
    SET name = coalesce(:name, name), policies = coalesce(:policies, policies),
        contact_email = coalesce(:contact_email, contact_email), timezone = coalesce(:timezone, timezone),
        updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
    WHERE id = :org_id
    RETURNING id, name, policies, contact_email, timezone, created_at, updated_at
""")


def find(tx: Connection, org_id: int) -> Stored | None:
    row = tx.execute(_FIND, {"org_id": org_id}).one_or_none()
    return Stored(*row) if row else None


def lock(tx: Connection, org_id: int) -> Stored | None:
    """As :func:`find`; until the end of the transaction nobody else changes it."""
    row = tx.execute(_LOCK, {"org_id": org_id}).one_or_none()
    return Stored(*row) if row else None


def update(tx: Connection, org_id: int, changes: OrganizationUpdate) -> Stored:
    """Change what is given of an organization that is locked."""
    given = {name: None if (value := getattr(changes, name)) is UNSET else value for name in changes.__struct_fields__}
    return Stored(*tx.execute(_UPDATE, {"org_id": org_id, **given}).one())
