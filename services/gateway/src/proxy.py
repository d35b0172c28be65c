"""The way of a request to its service: route, guard, body, service. Flask has no part in it.

Flask's request machinery costs more than everything that a proxied request needs (see the benchmarks).
"""

from collections.abc import Mapping

from heartguard.errors import Forbidden, ServiceError, Unauthorized

from .addresses import Addresses
from .answers import Answer, is_failure_of_ours
from .bodies import NONE, Body, is_expected, receive
from .guard import Guard
from .headers import Headers, from_client
from .journal import Journal
from .routes import Route, Routes
from .upstream import BODILESS, Upstream
from .visit import Visit


class Proxy:
    """Passes requests on, for one event loop."""

    def __init__(
        self,
        *,
        routes: Routes,
        addresses: Addresses,
        guard: Guard,
        upstreams: Mapping[str, Upstream],
        journal: Journal,
    ) -> None:
        self._routes = routes
        self._addresses = addresses
        self._guard = guard
        self._upstreams = upstreams
        self._journal = journal

    async def answer(self, visit: Visit) -> Answer:
        """The service's answer; raises what else the client is to be told."""
        try:
            route, target = self._find(visit)
        except ServiceError:  # what leads nowhere counts against the limit, too
            await self._guard.limit(visit)
            raise
        await self._admit(visit, route)
        headers = from_client(visit.headers, authorization=route.reads_token)
        headers += self._own_headers(visit)
        body = NONE if visit.method in BODILESS else await self._body(visit, route)
        try:
            if not route.changes:
                return await self._ask(visit, route, target, headers, body)
            intent = await self._journal.intend(visit)
            try:
                answer = await self._ask(visit, route, target, headers, body)
            except ServiceError as error:
                await self._journal.settle(visit, intent, error.status)
                raise
            except Exception:
                await self._journal.settle(visit, intent, 500, "unknown")
                raise
            await self._journal.settle(visit, intent, answer.status)
            return answer
        finally:
            body.close()

    async def _admit(self, visit: Visit, route: Route) -> None:
        """Let the guard judge, and the audit trail know whom it refuses."""
        try:
            await self._guard.admit(visit, route.audience, optional_caller=route.optional_caller, strict=route.stricter)
        except (Unauthorized, Forbidden) as refusal:
            await self._journal.refuse(visit, refusal.status)
            raise

    async def _ask(self, visit: Visit, route: Route, target: str, headers: Headers, body: Body) -> Answer:
        answer = await self._upstreams[route.service].send(visit.method, target, headers, body)
        visit.upstream_seconds = answer.seconds
        if answer.status >= 400 and visit.method != "HEAD" and not is_failure_of_ours(answer):
            if answer.stored is not None:
                answer.stored.close()
            raise ServiceError(502 if answer.status >= 500 else answer.status)
        return answer

    def _find(self, visit: Visit) -> tuple[Route, str]:
        """The route, and the target to ask its service for."""
        template, target = self._routes.find(visit.path)
        route = template.route(visit.method)
        visit.route = route
        return route, f"{target}?{visit.query}" if visit.query else target

    async def _body(self, visit: Visit, route: Route) -> Body:
        limit, too_large = route.body_limit, route.too_large
        if not is_expected(visit.headers, limit, too_large):
            return NONE
        return await receive(visit.request.read, limit, too_large)

    def _own_headers(self, visit: Visit) -> Headers:
        """What the services may trust, because only the gateway says it."""
        headers = visit.headers
        scheme, host = "http", headers.get("host", "")
        if self._addresses.trusts(visit.peer):
            forwarded = headers.get("x-forwarded-proto", scheme)
            scheme = forwarded if forwarded in {"http", "https"} else scheme
            host = headers.get("x-forwarded-host", host)
        return [
            ("x-request-id", visit.request_id),
            ("x-gateway-request-id", visit.gateway_id),
            ("traceparent", visit.trace),
            ("x-forwarded-for", visit.address.ip),
            ("x-forwarded-proto", scheme),
            ("x-forwarded-host", host),
        ]
