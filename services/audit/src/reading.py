"""Events for an organization's admin, a page at a time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Row

from heartguard.audit.masking import mask_text
from heartguard.database import Database
from heartguard.models.audit_event import AuditEvents, RecordedEvent
from heartguard.models.base import UNSET, UnsetType
from heartguard.paging import decode_cursor, encode_cursor
from heartguard.timestamps import parse_time

from . import db_read
from .queries import EventsQuery

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Reading:
    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, query: EventsQuery, org_id: int) -> AuditEvents:
        """The organization's events that the filters let through, newest first."""
        with self._database.transaction(org_id) as tx:
            rows = db_read.page(tx, org_id, _filters(query), query.limit + 1)
        more = len(rows) > query.limit
        rows = rows[: query.limit]
        return AuditEvents(
            items=[_item(row) for row in rows],
            next_cursor=encode_cursor(rows[-1].position, rows[-1].sequence) if more else UNSET,
        )


def _filters(query: EventsQuery) -> db_read.Filters:
    asked = {"actor": query.actor, "action": query.action, "service": query.service, "outcome": query.outcome}
    equal = {name: str(value) for name, value in asked.items() if value is not UNSET}
    if "actor" in equal:
        equal["actor"] = mask_text(equal["actor"])  # as it is stored
    before = None if isinstance(query.cursor, UnsetType) else decode_cursor(query.cursor, 2)
    return db_read.Filters(
        equal=equal,
        since=moment(query.since),
        until=moment(query.until),
        before=(before[0], before[1]) if before else None,
    )


def moment(text: str | UnsetType) -> str | None:
    """A time to the microsecond, as PostgreSQL reads it."""
    if isinstance(text, UnsetType):
        return None
    return (EPOCH + timedelta(microseconds=parse_time(text) // 1000)).isoformat()


def _item(row: Row[Any]) -> RecordedEvent:
    return RecordedEvent(
        id=row.event_id,
        actor=row.actor,
        action=row.action,
        service=row.service,
        outcome=row.outcome,
        occurred_at=row.occurred_at,
        recorded_at=row.recorded_at,
        request_id=UNSET if row.request_id is None else row.request_id,
        payload=msgspec.json.decode(row.payload),
        sequence=row.sequence,
        hash=bytes(row.hash).hex(),
    )
