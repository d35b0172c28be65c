"""All SQL of the user service, but for the end of sessions, which is the kit's."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from heartguard.models.base import UNSET, Role
from heartguard.models.user import UserUpdate


class Stored(NamedTuple):
    """A living user, in the order in which the columns are always selected."""

    id: int
    org_id: int
    email: str
    role: Role
    first_name: str | None
    last_name: str | None
    created_at: datetime
    updated_at: datetime
    preferences: dict[str, float | bool | str]


_SELECT = """
    SELECT u.id, u.org_id, u.email, u.role, u.first_name, u.last_name, u.created_at, u.updated_at,
           coalesce(p.preferences, '{}')
    FROM heartguard_core.users u LEFT JOIN heartguard_core.user_preferences p ON p.user_id = u.id
    WHERE u.org_id = :org_id AND u.deleted_at IS NULL
"""
_FIND = text(f"{_SELECT} AND u.id = :user_id")
_LIST = text(f"{_SELECT} AND u.id < :before ORDER BY u.id DESC LIMIT :limit")
_LOCK = text("""
    SELECT FROM heartguard_core.users WHERE org_id = :org_id AND id = :user_id AND deleted_at IS NULL FOR NO KEY UPDATE
""")
_LOCK_ADMINS = text("""
    SELECT id, role FROM heartguard_core.users
    WHERE org_id = :org_id AND deleted_at IS NULL AND (role = 'admin' OR id = :user_id)
    ORDER BY id FOR NO KEY UPDATE
""")
_IS_SIGNED_IN = text("""
    SELECT EXISTS (SELECT FROM heartguard_core.sessions WHERE id = :sid AND user_id = :user_id AND ended_at IS NULL)
""")
# No two states of a user have the same time, so that none passes for another.
_NOW = "updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')"
_UPDATE = text(f"""
    UPDATE heartguard_core.users
    SET first_name = coalesce(:first_name, first_name), last_name = coalesce(:last_name, last_name), {_NOW}
    WHERE org_id = :org_id AND id = :user_id
""")  # noqa: S608
_REPLACE_PREFERENCES = text("""
    INSERT INTO heartguard_core.user_preferences (user_id, org_id, preferences)
    VALUES (:user_id, :org_id, :preferences)
    ON CONFLICT (user_id) DO UPDATE SET preferences = excluded.preferences
""").bindparams(bindparam("preferences", type_=JSONB))
_CHANGE_ROLE = text(f"""
    UPDATE heartguard_core.users SET role = :role, {_NOW} WHERE org_id = :org_id AND id = :user_id
""")  # noqa: S608
_DELETE = text(f"""
    UPDATE heartguard_core.users SET deleted_at = now(), {_NOW} WHERE org_id = :org_id AND id = :user_id
""")  # noqa: S608

FIRST = 2**31
"""Above every id."""


def find(tx: Connection, org_id: int, user_id: int) -> Stored | None:
    row = tx.execute(_FIND, {"org_id": org_id, "user_id": user_id}).one_or_none()
    return Stored(*row) if row else None


def found(tx: Connection, org_id: int, user_id: int) -> Stored:
    """One that is known to be there, for it is locked."""
    return Stored(*tx.execute(_FIND, {"org_id": org_id, "user_id": user_id}).one())


def list_users(tx: Connection, org_id: int, before: int | None, limit: int) -> Sequence[Stored]:
    """Those with ids below ``before``, newest first."""
    asked = {"org_id": org_id, "before": FIRST if before is None else before, "limit": limit}
    return [Stored(*row) for row in tx.execute(_LIST, asked)]


def lock(tx: Connection, org_id: int, user_id: int) -> bool:
    """Until the end of the transaction nobody else changes the user; False where there is none."""
    return tx.execute(_LOCK, {"org_id": org_id, "user_id": user_id}).one_or_none() is not None


def lock_admins(tx: Connection, org_id: int, user_id: int) -> list[int]:
    """The organization's admins. All are locked, as is the user, always in the same order: nobody waits in a circle."""
    rows = tx.execute(_LOCK_ADMINS, {"org_id": org_id, "user_id": user_id})
    return [row.id for row in rows if row.role == "admin"]


def is_signed_in(tx: Connection, user_id: int, sid: str) -> bool:
    return bool(tx.execute(_IS_SIGNED_IN, {"user_id": user_id, "sid": sid}).scalar_one())


def update(tx: Connection, org_id: int, user_id: int, changes: UserUpdate) -> None:
    """Change what is given."""
    whom = {"org_id": org_id, "user_id": user_id}
    tx.execute(_UPDATE, {**whom, "first_name": changes.first_name or None, "last_name": changes.last_name or None})
    if changes.preferences is not UNSET:
        tx.execute(_REPLACE_PREFERENCES, {**whom, "preferences": changes.preferences})


def change_role(tx: Connection, org_id: int, user_id: int, role: Role) -> None:
    tx.execute(_CHANGE_ROLE, {"org_id": org_id, "user_id": user_id, "role": role})


def delete(tx: Connection, org_id: int, user_id: int) -> None:
    """The row stays, for the audit trail; its address is free again."""
    tx.execute(_DELETE, {"org_id": org_id, "user_id": user_id})
