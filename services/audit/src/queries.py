"""What can be asked of the trail."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from heartguard.models.audit_event import Action, Outcome
from heartguard.models.base import Query, Text, Timestamp
from heartguard.paging import Page
from heartguard.timestamps import parse_time

EventNumber = Annotated[int, Meta(ge=1, le=2**63 - 1)]
"""Of an event in its organization's chain."""


class EventsQuery(Page):
    """Filters. ``from`` (inclusive) and ``to`` (exclusive) are about when it happened."""

    actor: Annotated[Text, Meta(max_length=256)] | UnsetType = UNSET
    action: Action | UnsetType = UNSET
    service: Annotated[Text, Meta(max_length=64)] | UnsetType = UNSET
    outcome: Outcome | UnsetType = UNSET
    since: Timestamp | UnsetType = msgspec.field(name="from", default=UNSET)
    until: Timestamp | UnsetType = msgspec.field(name="to", default=UNSET)

    def __post_init__(self) -> None:
        for time in (self.since, self.until):
            if time is not UNSET:
                parse_time(time)


class ExportQuery(Query):
    """From which event to which, both included; without them from the first that there is, and to the last."""

    from_sequence: EventNumber | UnsetType = UNSET
    to_sequence: EventNumber | UnsetType = UNSET
