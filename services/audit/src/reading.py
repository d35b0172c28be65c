"""Events for an organization's admin, a page at a time."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import Row

from heartguard.audit.masking import mask_text
from heartguard.database import Database
from heartguard.models.audit_event import AuditEvents, RecordedEvent
from heartguard.models.base import UNSET, UnsetType
from heartguard.timestamps import parse_time

from . import db_read
from .queries import EventsQuery

Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Key: type[tuple[int, int]] = tuple[Number, Number]
"""What the list is ordered by: when it happened, in microseconds since the epoch, and the sequence."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Reading:
    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, query: EventsQuery, org_id: int) -> AuditEvents:
        """The organization's events that the filters let through, newest first."""
        with self._database.transaction(org_id) as tx:
            rows = db_read.page(tx, org_id, _filters(query), query.asked)
        shown, next_cursor = query.cut(rows, lambda row: (row.position, row.sequence))
        return AuditEvents(items=[_item(row) for row in shown], next_cursor=next_cursor)


def _filters(query: EventsQuery) -> db_read.Filters:
    asked = {"actor": query.actor, "action": query.action, "service": query.service, "outcome": query.outcome}
    equal = {name: mask_text(str(value)) for name, value in asked.items() if value is not UNSET}  # as it is stored
    return db_read.Filters(
        equal=equal,
        since=moment(query.since),
        until=moment(query.until),
        before=query.after(Key),
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
