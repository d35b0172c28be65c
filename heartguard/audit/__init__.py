"""Events for the audit trail.

An endpoint states what the trail calls it (``audit="USER_UPDATE"``); that is all there is to say in most cases.
Who did it, in which organization and under which request id comes from the request:

* What changes PostgreSQL calls ``audit.record(tx, …)`` in the transaction that does it: the event is committed
  or rolled back together with the change.
* Where a view that states an action recorded nothing, the event is sent by :func:`emit` once the view has returned,
  before the answer goes out.
* A refusal (403, or a 401 before the view) is sent as ``ACCESS_DENIED``; other failures that the trail shall tell
  of, a view sends by :func:`emit` itself: ``audit.emit("LOGIN_FAILED", outcome="failure", actor=…, org_id=…)``.

No answer goes out before its events are safe. Where nothing takes them, it is a 503.
"""

from typing import TYPE_CHECKING, Any, Protocol

from flask import Flask, current_app, g, has_request_context

from .event import ANONYMOUS, OUTCOMES, PLATFORM, Event, Outcome, encode, make, new_event_id, outcome_id, unknown_id
from .trail import Trail

__all__ = [
    "ANONYMOUS", "OUTCOMES", "PLATFORM", "Event", "Outcome", "Sink", "Trail", "emit", "encode", "install",
    "is_installed", "make", "new_event_id", "outbox_row", "outcome_id", "record", "stated", "trail", "unknown_id",
]  # fmt: skip

if TYPE_CHECKING:  # which a service without a database need not have
    from sqlalchemy import Connection

    from ..tokens import Claims

SERVICE = "service"
"""Who acts where a service calls another on its own."""

_OUTBOX = "INSERT INTO heartguard_core.audit_outbox (event) VALUES (%s)"


class Sink(Protocol):
    """What takes an application's events: a :class:`Trail`."""

    def put(self, *events: Event) -> None:
        """Return when the events are safe. Raises :class:`heartguard.errors.Unavailable`."""
        ...

    def check(self) -> None:
        """Raises :class:`heartguard.errors.Unavailable` where an event could not be taken now."""
        ...


def install(app: Flask, trail: Sink) -> None:
    """Make ``trail`` the one that the application's events go to."""
    app.extensions["heartguard.audit"] = trail


def is_installed(app: Flask) -> bool:
    return "heartguard.audit" in app.extensions


def trail() -> Sink:
    """The trail of the application at work."""
    found: Sink = current_app.extensions["heartguard.audit"]
    return found


def stated() -> str | None:
    """The action that the endpoint at work states."""
    return g.get("audit_action") if has_request_context() else None


def emit(
    action: str | None = None,
    *,
    outcome: Outcome = "success",
    actor: str | None = None,
    org_id: int | None = None,
    **payload: object,
) -> None:
    """Send an event, and return when it is safe; ``action``, ``actor`` and ``org_id`` are those of the request unless
    given. Raises :class:`heartguard.errors.Unavailable` where nothing takes it.

    For a change in PostgreSQL use :func:`record`. Secrets and personal data in ``payload`` are masked. Where it is what
    the endpoint states, that is not sent once more.
    """
    event = _event(action, outcome, actor, org_id, payload)
    trail().put(event)
    if has_request_context() and event.action == stated():
        g.audit_recorded = True


def record(
    tx: "Connection",
    action: str | None = None,
    *,
    outcome: Outcome = "success",
    actor: str | None = None,
    org_id: int | None = None,
    service: str | None = None,
    **payload: object,
) -> None:
    """Add an event to the transaction: it is in the trail if and only if ``tx`` is committed.

    Arguments as of :func:`emit`; outside of a request the ``service`` is to be given. There, and without an
    ``action``, there is nothing to record.
    """
    if action is not None or stated() is not None:
        row = outbox_row(action, outcome=outcome, actor=actor, org_id=org_id, service=service, **payload)
        tx.exec_driver_sql(_OUTBOX, (row,))


def outbox_row(
    action: str | None = None,
    *,
    outcome: Outcome = "success",
    actor: str | None = None,
    org_id: int | None = None,
    service: str | None = None,
    **payload: object,
) -> str:
    """What :func:`record` inserts into ``audit_outbox (event)``, for a statement that does so on its own."""
    event = _event(action, outcome, actor, org_id, payload, service)
    if has_request_context() and event.action == stated():
        g.audit_recorded = True
    return encode(event).decode()


def _event(
    action: str | None,
    outcome: Outcome,
    actor: str | None,
    org_id: int | None,
    payload: dict[str, Any],
    service: str | None = None,
) -> Event:
    in_request = has_request_context()
    caller = g.get("caller") if in_request else None
    action = action or stated()
    if action is None:
        raise TypeError("no action is given, and the endpoint states none")
    if org_id is None:
        org_id = caller.org_id if caller else PLATFORM
    service = service or (current_app.name if current_app else "heartguard")
    return make(
        action,
        actor or _acting(caller, service),
        service=service,
        org_id=org_id,
        outcome=outcome,
        request_id=g.get("request_id") if in_request else None,
        payload=payload,
    )


def _acting(caller: "Claims | None", service: str) -> str:
    """Who acts: the caller; else somebody who is not signed in, or the service itself."""
    if caller is not None:
        return SERVICE if caller.role == "service" else caller.sub
    return ANONYMOUS if has_request_context() else f"{SERVICE}:{service}"
