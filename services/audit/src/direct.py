"""Events that somebody sends to this service itself."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from heartguard.audit.chain import time_text
from heartguard.audit.event import Event, make
from heartguard.database import Database
from heartguard.errors import Invalid
from heartguard.models.audit_event import AuditEventCreate
from heartguard.models.base import UnsetType
from heartguard.models.common import Detail
from heartguard.timestamps import parse_time
from heartguard.tokens import Claims

from . import instruments
from .recorder import Recorder

DERIVED = 5
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Direct:
    def __init__(self, database: Database, recorder: Recorder) -> None:
        self._database = database
        self._recorder = recorder

    def record(self, request: AuditEventCreate, caller: Claims, request_id: str) -> tuple[str, bool]:
        """Record it in the caller's organization (a service's: the platform's); its id, and whether it is new.

        Raises :class:`Invalid` for an id of version 5: outcomes have such, that follow from their intents' ids. Who
        knows an intent could say what became of it before the gateway does.
        """
        if not isinstance(request.event_id, UnsetType) and UUID(request.event_id).version == DERIVED:
            raise Invalid(
                [Detail(path="/event_id", message="must be no UUID of version 5: those are derived, not given")]
            )
        event = _event(request, caller.org_id, request_id)
        self._recorder.prepare()
        with self._database.transaction() as tx:
            fresh = self._recorder.append(tx, [event])
        instruments.RECORDED.labels("request").inc(fresh)
        return event.event_id, bool(fresh)


def _event(request: AuditEventCreate, org_id: int, request_id: str) -> Event:
    return make(
        request.action,
        request.actor,
        service=request.service,
        org_id=org_id,
        outcome=request.outcome,
        request_id=request_id if isinstance(request.request_id, UnsetType) else request.request_id,
        payload=dict(request.payload),
        event_id=None if isinstance(request.event_id, UnsetType) else request.event_id.lower(),
        occurred_at=None if isinstance(request.occurred_at, UnsetType) else _moment(request.occurred_at),
    )


def _moment(text: str) -> str:
    """To the microsecond: finer it is not kept."""
    return time_text(EPOCH + timedelta(microseconds=parse_time(text) // 1000))
