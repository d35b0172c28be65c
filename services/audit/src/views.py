"""The endpoints of section 8 of the contract."""

from flask import Response, g

from heartguard.endpoint import Reply
from heartguard.endpoints import Endpoints
from heartguard.models.audit_event import AuditEvent, AuditEventCreate, AuditEvents, AuditVerification
from heartguard.policy import Audience
from heartguard.tokens import Claims

from .direct import Direct
from .export import Export, file_name
from .queries import EventsQuery, ExportQuery
from .reading import Reading
from .verification import Verification

endpoints = Endpoints("audit")

NDJSON = "application/x-ndjson"


@endpoints.post("/audit/events", audience=Audience.SERVICE, status=201, statuses=(200,))
def record_event(event: AuditEventCreate, caller: Claims, direct: Direct) -> Reply[AuditEvent]:
    """Record something that happened; the same ``event_id`` again is recorded once."""
    event_id, fresh = direct.record(event, caller, g.request_id)
    return Reply(AuditEvent(id=event_id), 201 if fresh else 200)


@endpoints.get("/audit/events", audience=Audience.ADMIN)
def list_events(query: EventsQuery, caller: Claims, reading: Reading) -> AuditEvents:
    """The organization's events, newest first."""
    return reading.page(query, caller.org_id)


@endpoints.get(
    "/audit/verify",
    audience=Audience.ADMIN,
    errors={503: "The chain is long, and there is more to verify: ask again"},
)
def verify(caller: Claims, verification: Verification) -> AuditVerification:
    """Recompute the organization's chain."""
    return verification.verify(caller.org_id)


@endpoints.get("/audit/export", audience=Audience.ADMIN, produces=NDJSON)
def export(query: ExportQuery, caller: Claims, exporter: Export) -> Response:
    """The organization's chain as NDJSON, to be checked offline.

    One that is too long for a single answer is fetched in parts: each is checked by itself, which says nothing of what
    comes before and after it, or in a row with the others, as a whole.
    """
    extent = exporter.extent(caller.org_id, query)
    headers = {"Content-Disposition": f'attachment; filename="{file_name(caller.org_id, extent)}"'}
    return Response(exporter.lines(caller.org_id, extent), content_type=NDJSON, headers=headers)
