"""What the audit trail knows of the demo."""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from urllib.parse import urlencode

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...models.audit_event import AuditEvents, AuditVerification, Outcome, RecordedEvent
from ...models.base import UnsetType
from ..client import GatewayClient, Refused

ARRIVAL = 30.0
"""Seconds in which everything must be in the trail."""
PAUSE = 1.0
PAGES = 50
"""Of 200 events each, looked through for the demo's: others may be at work in the organization."""
CLOCKS_APART = timedelta(minutes=1)
"""How far the services' clocks may be apart."""


class Chronicle:
    """What must be in the trail: the request's id, the action and its outcome."""

    def __init__(self) -> None:
        self._acts: set[tuple[object, str, Outcome]] = set()

    def expect(self, action: str, client: GatewayClient, outcome: Outcome = "success") -> None:
        """The client's last request did that."""
        self._acts.add((client.request_id, action, outcome))

    def missing(self, events: Sequence[RecordedEvent]) -> list[str]:
        seen = {(event.request_id, event.action, event.outcome) for event in events}
        return sorted(f"{action} ({outcome}) of request {id_}" for id_, action, outcome in self._acts - seen)


def arrived(admin: GatewayClient, since: datetime, chronicle: Chronicle) -> list[RecordedEvent]:
    """The demo's events in the order of the trail, as soon as all that must be there are."""
    end = time.monotonic() + ARRIVAL
    while True:
        events = sorted(_own(admin, since), key=lambda event: event.sequence)
        missing = chronicle.missing(events)
        if not missing:
            return events
        if time.monotonic() > end:
            raise Refused(f"not in the audit trail after {ARRIVAL:.0f} s: " + ", ".join(missing))
        time.sleep(PAUSE)


def _own(admin: GatewayClient, since: datetime) -> Iterator[RecordedEvent]:
    """Those whose request ids are the demo's."""
    query = {"limit": "200", "from": (since - CLOCKS_APART).strftime("%Y-%m-%dT%H:%M:%SZ")}
    for _ in range(PAGES):
        page = admin.call("GET", f"/audit/events?{urlencode(query)}", None, AuditEvents)
        for event in page.items:
            if not isinstance(event.request_id, UnsetType) and event.request_id.startswith(f"{admin.prefix}-"):
                yield event
        if isinstance(page.next_cursor, UnsetType):
            return
        query["cursor"] = page.next_cursor
    raise Refused(f"the organization is too busy: the demo's events are not among the latest {200 * PAGES}")


def show(events: Sequence[RecordedEvent], names: dict[str, str], console: Console) -> None:
    """What the services recorded and who was refused, as a table; the gateway's own entries are only counted."""
    own = [event for event in events if event.action == "REQUEST" and event.outcome != "denied"]
    table = Table(title="The audit trail")
    for column in ("no.", "time (UTC)", "who", "action", "outcome", "what"):
        table.add_column(column, overflow="fold")
    for event in events:
        if event not in own:
            table.add_row(*map(Text, _cells(event, names)))
    console.print(table)
    intents = sum(event.outcome == "intent" for event in own)
    console.print(f"Besides, the gateway recorded {intents} intents to change something, and what came of each.")


def _cells(event: RecordedEvent, names: dict[str, str]) -> list[str]:
    what = {key: names.get(str(value), value) if key == "user_id" else value for key, value in event.payload.items()}
    return [
        str(event.sequence),
        event.occurred_at.strftime("%H:%M:%S"),
        names.get(event.actor, event.actor),
        event.action,
        event.outcome,
        ", ".join(f"{key}={value}" for key, value in what.items() if key not in {"session", "intent"}),
    ]


def verify(admin: GatewayClient, console: Console) -> None:
    """Have the organization's chain recomputed; :class:`Refused` where it is not whole."""
    found = admin.call("GET", "/audit/verify", None, AuditVerification)
    if not found.valid:
        raise Refused(f"the audit trail was altered: the first bad event is number {found.first_bad_sequence}")
    console.print(
        f"[green]The chain is whole[/green]: {found.events} events, up to number {found.last_sequence},"
        f" head {found.head_hash[:16]}…"
    )
