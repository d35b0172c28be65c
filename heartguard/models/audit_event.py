"""Types of the audit service."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from ..timestamps import parse_time
from .base import UNSET, Answer, Request, Text, Timestamp, UnsetType, full

Outcome = Literal["intent", "success", "failure", "denied", "unknown"]
Action = Annotated[str, full("[A-Z][A-Z0-9_]{0,63}", description="What was done, in UPPER_SNAKE")]
EventId = Annotated[str, full("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", description="The UUID of an event")]
MAX_PAYLOAD = 100


class AuditEventCreate(Request):
    """Something that happened. The same ``event_id`` again is recorded once."""

    actor: Annotated[Text, Meta(min_length=1, max_length=256)]
    action: Action
    service: Annotated[Text, Meta(min_length=1, max_length=64)]
    payload: Annotated[dict[Text, float | bool | Text], Meta(max_length=MAX_PAYLOAD)] = {}
    occurred_at: Timestamp | UnsetType = UNSET
    event_id: EventId | UnsetType = UNSET
    request_id: Annotated[str, full("[A-Za-z0-9._\\-]{1,128}")] | UnsetType = UNSET
    outcome: Outcome = "success"

    def __post_init__(self) -> None:
        if self.occurred_at is not UNSET:
            parse_time(self.occurred_at)


class AuditEvent(Answer):
    """The event is in the trail, durably."""

    id: str
    status: Literal["recorded"] = "recorded"


class RecordedEvent(Answer):
    """An event as the trail keeps it; secrets and personal data are masked. ``hash`` is in hexadecimal digits."""

    id: str
    actor: str
    action: str
    service: str
    outcome: Outcome
    occurred_at: datetime
    recorded_at: datetime
    payload: dict[str, int | float | bool | str]
    sequence: int
    hash: str
    request_id: str | UnsetType = UNSET


class AuditEvents(Answer):
    items: list[RecordedEvent]
    next_cursor: str | UnsetType = UNSET


class AuditVerification(Answer):
    """Whether the organization's chain is whole. ``events`` is how many were looked at."""

    valid: bool
    events: int
    first_sequence: int
    last_sequence: int
    head_hash: str
    first_bad_sequence: int | UnsetType = UNSET
