"""What the gateway tells the audit trail: what is about to be changed and what came of it, and who was refused."""

from heartguard.audit import ANONYMOUS, PLATFORM, Event, Outcome, make, outcome_id
from heartguard.audit.async_trail import AsyncTrail
from heartguard.errors import Unavailable
from heartguard.logs import log
from heartguard.paths import shown

from .visit import Visit


class Journal:
    """For one event loop."""

    def __init__(self, trail: AsyncTrail) -> None:
        self._trail = trail

    async def intend(self, visit: Visit) -> Event:
        """Record that a request that may change something is about to be passed on.

        Raises :class:`Unavailable` where that cannot be recorded: then it must not be.
        """
        intent = _event(visit, "REQUEST", "intent")
        await self._trail.put(intent)
        return intent

    async def settle(self, visit: Visit, intent: Event, status: int, outcome: Outcome | None = None) -> None:
        """Record what came of it: ``outcome``, or else what the status says.

        Where that cannot be recorded, the audit service will report that nobody knows.
        """
        event_id = outcome_id(intent.event_id)
        told = {"status": status, "intent": intent.event_id}
        await self._try(_event(visit, "REQUEST", outcome or _outcome(status), event_id=event_id, **told))

    async def refuse(self, visit: Visit, status: int) -> None:
        """Record that somebody was refused. Raises :class:`Unavailable` where that cannot be."""
        await self._trail.put(_event(visit, "ACCESS_DENIED", "denied", status=status))

    async def _try(self, event: Event) -> None:
        try:
            await self._trail.put(event)
        except Unavailable as error:
            log.error("audit outcome not recorded", request_id=event.request_id, error=repr(error.__cause__))


def _event(visit: Visit, action: str, outcome: Outcome, event_id: str | None = None, **payload: object) -> Event:
    claims = visit.claims
    route = visit.route.path if visit.route is not None else "unknown"
    return make(
        action,
        claims.sub if claims else ANONYMOUS,
        service="gateway",
        org_id=claims.org_id if claims else PLATFORM,
        outcome=outcome,
        request_id=visit.request_id,
        payload={"method": visit.method, "route": route, "path": shown(visit.path, route), **payload},
        event_id=event_id,
    )


def _outcome(status: int) -> Outcome:
    if status == 504:  # it may have been done all the same
        return "unknown"
    if status in {401, 403}:
        return "denied"
    return "success" if status < 400 else "failure"
