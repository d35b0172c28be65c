"""The SQL of the media service."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from .names import ObjectName

PENDING, STORED, DELETING, LOST = "pending", "stored", "deleting", "lost"


@dataclass(frozen=True, kw_only=True)
class NewItem:
    """A file that is about to be stored; ``size`` in bytes."""

    id: uuid.UUID
    org_id: int
    owner_id: int
    file_name: str
    content_type: str
    size: int
    sha256: bytes

    @property
    def name(self) -> ObjectName:
        return ObjectName.of(self.org_id, self.owner_id, self.id, self.file_name)


@dataclass(frozen=True, kw_only=True)
class Item(NewItem):
    """A stored file."""

    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the sweeper needs to know of a row."""

    id: uuid.UUID
    name: ObjectName
    state: str


_COLUMNS = "id, org_id, owner_id, file_name, content_type, size, sha256, created_at"
_INSERT = text("""
    INSERT INTO heartguard_core.media_items
        (id, org_id, owner_id, file_name, object_name, content_type, size, sha256)
    VALUES (:id, :org, :owner, :file_name, :object_name, :content_type, :size, :sha256)
""")
_NOT_AWAITED = text("SET LOCAL synchronous_commit = off")
_STORED = text(f"""
    UPDATE heartguard_core.media_items
    SET state = 'stored', changed_at = clock_timestamp(), created_at = clock_timestamp()
    WHERE id = :id AND org_id = :org AND state = 'pending'
    RETURNING {_COLUMNS}
""")  # noqa: S608
_FIND = text(f"""
    SELECT {_COLUMNS} FROM heartguard_core.media_items
    WHERE id = :id AND org_id = :org AND state = 'stored'
      AND (CAST(:owner AS integer) IS NULL OR owner_id = :owner)
""")  # noqa: S608
_PAGE = f"""
    SELECT {_COLUMNS} FROM heartguard_core.media_items
    WHERE org_id = :org AND state = 'stored' {{owner}} {{before}}
    ORDER BY created_at DESC, id DESC LIMIT :limit
"""  # noqa: S608
_OWNER = "AND owner_id = :owner"
_BEFORE = "AND (created_at, id) < (:created_at, :id)"
_PAGES = {(o, b): text(_PAGE.format(owner=o, before=b)) for o in ("", _OWNER) for b in ("", _BEFORE)}

_DELETING = text("""
    UPDATE heartguard_core.media_items SET state = 'deleting', changed_at = clock_timestamp()
    WHERE id = :id AND org_id = :org AND state IN ('stored', 'deleting')
    RETURNING object_name
""")
_FORGET = text("DELETE FROM heartguard_core.media_items WHERE id = :id AND org_id = :org AND state <> 'stored'")

_SWEEPER = text("SELECT set_config('heartguard.sweeper', 'on', true)")
_UNFINISHED = text("""
    SELECT id, object_name, state FROM heartguard_core.media_items
    WHERE state IN ('pending', 'deleting') AND changed_at < clock_timestamp() - make_interval(secs => :grace)
    ORDER BY changed_at LIMIT :limit
""")
_LOCK = text("""
    SELECT id FROM heartguard_core.media_items
    WHERE id = :id AND org_id = :org AND state = :state FOR UPDATE SKIP LOCKED
""")
_AFTER = text("""
    SELECT id, object_name, state FROM heartguard_core.media_items
    WHERE object_name > :after ORDER BY object_name LIMIT :limit
""")
_EXISTS = text("SELECT EXISTS (SELECT FROM heartguard_core.media_items WHERE id = :id)")
_CHANGE = text("""
    UPDATE heartguard_core.media_items SET state = :to, changed_at = clock_timestamp()
    WHERE id = :id AND org_id = :org AND state = :from
""")
_CLAIM = text("""
    UPDATE heartguard_core.media_sweeps SET begun_at = clock_timestamp()
    WHERE begun_at < clock_timestamp() - make_interval(secs => :every) RETURNING begun_at
""")


def insert(tx: Connection, item: NewItem) -> None:
    """Note that the file is about to be stored.

    Nobody waits until that is on the disk: should PostgreSQL crash now, there will be no row to become stored, and the
    object is one without a row.
    """
    tx.execute(_NOT_AWAITED)
    tx.execute(
        _INSERT,
        {
            "id": item.id,
            "org": item.org_id,
            "owner": item.owner_id,
            "file_name": item.file_name,
            "object_name": str(item.name),
            "content_type": item.content_type,
            "size": item.size,
            "sha256": item.sha256,
        },
    )


def mark_stored(tx: Connection, item: NewItem) -> Item | None:
    """The item as all can see it from now on; None where the sweeper has given it up."""
    row = tx.execute(_STORED, {"id": item.id, "org": item.org_id}).one_or_none()
    return None if row is None else _item(row)


def find(tx: Connection, org_id: int, id_: uuid.UUID, owner_id: int | None) -> Item | None:
    """A stored item of the organization, and of that owner unless None."""
    row = tx.execute(_FIND, {"id": id_, "org": org_id, "owner": owner_id}).one_or_none()
    return None if row is None else _item(row)


def page(
    tx: Connection, org_id: int, owner_id: int | None, before: tuple[datetime, uuid.UUID] | None, limit: int
) -> list[Item]:
    """Stored items, newest first, from the one after ``before`` on."""
    query = _PAGES["" if owner_id is None else _OWNER, "" if before is None else _BEFORE]
    known: dict[str, Any] = {"org": org_id, "limit": limit, "owner": owner_id}
    if before is not None:
        known |= {"created_at": before[0], "id": before[1]}
    return [_item(row) for row in tx.execute(query, known)]


def mark_deleting(tx: Connection, org_id: int, id_: uuid.UUID) -> ObjectName | None:
    """Hide an item from all; its object's name. None where there is no such item."""
    row = tx.execute(_DELETING, {"id": id_, "org": org_id}).one_or_none()
    return None if row is None else _name(row.object_name)


def forget(tx: Connection, name: ObjectName) -> None:
    """Remove the row of an object that is gone."""
    tx.execute(_FORGET, {"id": uuid.UUID(name.id), "org": name.org_id})


# The sweeper's


def unfinished(tx: Connection, grace: float, limit: int) -> Sequence[Known]:
    """Rows of any organization that have been on their way in or out for more than ``grace`` seconds."""
    tx.execute(_SWEEPER)
    return [_known(row) for row in tx.execute(_UNFINISHED, {"grace": grace, "limit": limit})]


def lock(tx: Connection, known: Known) -> bool:
    """Hold the row, if it is still in that state and nobody else holds it."""
    found = tx.execute(_LOCK, {"id": known.id, "org": known.name.org_id, "state": known.state})
    return found.one_or_none() is not None


def known_after(tx: Connection, after: str, limit: int) -> Sequence[Known]:
    """Rows of any organization in the order of their objects' names."""
    tx.execute(_SWEEPER)
    return [_known(row) for row in tx.execute(_AFTER, {"after": after, "limit": limit})]


def exists(tx: Connection, name: ObjectName) -> bool:
    return bool(tx.execute(_EXISTS, {"id": uuid.UUID(name.id)}).scalar_one())


def change_state(tx: Connection, known: Known, to: str) -> bool:
    change = {"id": known.id, "org": known.name.org_id, "from": known.state, "to": to}
    return tx.execute(_CHANGE, change).rowcount == 1


def claim_sweep(tx: Connection, every: float) -> bool:
    """Whether the last comparison of rows and objects began more than ``every`` seconds ago; it begins anew then."""
    return tx.execute(_CLAIM, {"every": every}).one_or_none() is not None


def _item(row: Row[Any]) -> Item:
    return Item(
        id=row.id,
        org_id=row.org_id,
        owner_id=row.owner_id,
        file_name=row.file_name,
        content_type=row.content_type,
        size=row.size,
        sha256=bytes(row.sha256),
        created_at=row.created_at,
    )


def _known(row: Row[Any]) -> Known:
    return Known(id=row.id, name=_name(row.object_name), state=row.state)


def _name(text_: str) -> ObjectName:
    name = ObjectName.parse(text_)
    assert name is not None, "only names that were built by ObjectName are stored"
    return name
