"""The gateway's face to the web server: every request comes in here, and every answer goes out.

granian calls :class:`Front` on an event loop (its RSGI interface). All that clients, Valkey and services are waited
for is waited for on that loop, each wait with a time limit, so that nobody who is slow holds up anybody else. The
order of work is the contract's: request ids, CORS preflight, rate limit, token, revocation, policy, proxy, audit
event, log.
"""

import asyncio
from collections.abc import Callable, Sequence, Set

from heartguard.codec import encode_error
from heartguard.errors import Malformed, ServiceError, Unavailable
from heartguard.logs import log
from heartguard.services import SERVICES

from .addresses import Addresses
from .answers import Answer
from .bodies import SLOWEST
from .bridge import Bridge
from .cors import Cors
from .guard import Guard
from .headers import VARY, from_service
from .outlet import SEND_TIMEOUT, Outlet
from .own_pages import OwnPages
from .proxy import Proxy
from .reports import Reports
from .routes import is_proxied
from .rsgi import Headers, Protocol, Scope
from .stored import Stored
from .visit import Visit

PREFIX = SERVICES["gateway"].prefix
MOST_AT_WORK = 1024
"""How many requests may be at work; the next one is told to come back."""

_WITHOUT_BODY = frozenset({204, 304})

Begun = tuple[int, Headers, Stored, Outlet]
"""The status of a long answer, its headers, itself, and where it is to go."""


class Front:
    """The gateway as an RSGI application."""

    def __init__(
        self,
        pages: OwnPages,
        *,
        own_paths: Set[str],
        proxy: Proxy,
        addresses: Addresses,
        cors: Cors,
        guard: Guard,
        reports: Reports,
        bridge: Bridge,
        closing: Sequence[Callable[[], None]],
    ) -> None:
        self._pages = pages
        self._own_paths = own_paths
        self._proxy = proxy
        self._addresses = addresses
        self._cors = cors
        self._guard = guard
        self._reports = reports
        self._bridge = bridge
        self._closing = closing
        self._at_work = 0

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._bridge.leads_to(loop)

    def __rsgi_del__(self, _loop: asyncio.AbstractEventLoop) -> None:
        for close in self._closing:
            close()

    async def __rsgi__(self, scope: Scope, protocol: Protocol) -> None:
        visit = Visit(scope, self._addresses)
        self._at_work += 1
        try:
            if (begun := await self._begin(visit, scope, protocol)) is not None:
                await self._send(visit, protocol, *begun)
        finally:
            self._at_work -= 1

    async def _begin(self, visit: Visit, scope: Scope, protocol: Protocol) -> Begun | None:
        """Answer; a long answer is returned, to be sent."""
        try:
            if self._at_work > MOST_AT_WORK:
                raise Unavailable
            await self._check(visit, scope)
            if visit.method == "OPTIONS":
                self._finish(visit, 204, [*visit.told(), *self._cors.preflight(visit.origin)], b"", protocol)
            elif is_proxied(visit.path):
                return self._pass_back(visit, await self._proxy.answer(visit, protocol), protocol)
            else:
                await self._own_page(visit, scope, protocol)
        except ServiceError as error:
            self._refuse(visit, error, protocol)
        except Exception as error:  # noqa: BLE001 - whatever happens, the client gets the contract's error
            log.error("failure", status=500, request_id=visit.request_id, exc_info=error)
            self._refuse(visit, ServiceError(500), protocol)
        return None

    async def _check(self, visit: Visit, scope: Scope) -> None:
        try:
            visit.check(scope.headers)
        except Malformed:  # counts against the limit, as all that leads nowhere
            await self._guard.limit(visit)
            raise

    def _pass_back(self, visit: Visit, answer: Answer, protocol: Protocol) -> Begun | None:
        headers = from_service(answer.headers)
        headers += visit.told()
        headers += self._cors.actual(visit.origin)
        stored = answer.stored
        if stored is None:
            if visit.method == "HEAD" and answer.length is not None:
                headers.append(("content-length", answer.length))
            self._finish(visit, answer.status, headers, answer.body, protocol)
            return None
        headers.append(("content-length", str(stored.length)))
        try:
            return answer.status, headers, stored, Outlet()
        except Unavailable:
            stored.close()
            raise

    async def _own_page(self, visit: Visit, scope: Scope, protocol: Protocol) -> None:
        """Let Flask answer, and report; what nobody stated counts against the limit."""
        if visit.path not in self._own_paths:
            await self._guard.limit(visit)
        status, headers, body = await self._pages.answer(visit, scope)
        protocol.response_bytes(status, [*headers, *visit.told(), *self._cors.actual(visit.origin)], body)

    def _finish(self, visit: Visit, status: int, headers: Headers, body: bytes, protocol: Protocol) -> None:
        protocol.response_bytes(status, headers, b"" if status in _WITHOUT_BODY else body)
        self._reports.report(visit, status)

    async def _send(
        self, visit: Visit, protocol: Protocol, status: int, headers: Headers, stored: Stored, outlet: Outlet
    ) -> None:
        """Send a long answer. An error ends the connection: what has been sent cannot be taken back."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT + stored.length / SLOWEST):
                await outlet.begin(protocol, status, headers)
                while piece := await stored.read():
                    await outlet.send(piece)
        except OSError as error:
            log.info("broken off", request_id=visit.request_id, error=repr(error))
        finally:
            outlet.close()
            stored.close()
            self._reports.report(visit, status)

    def _refuse(self, visit: Visit, error: ServiceError, protocol: Protocol) -> None:
        if error.status >= 500:
            log.warning("refused", status=error.status, request_id=visit.request_id, error=repr(error.__cause__))
        fmt = visit.format
        body = encode_error(error.body(PREFIX, visit.request_id), fmt)
        headers = [
            ("content-type", fmt.value),
            ("content-length", str(len(body))),
            ("cache-control", "no-store"),
            ("vary", VARY),
            ("x-content-type-options", "nosniff"),
            *((name.lower(), value) for name, value in error.headers.items()),
            *visit.told(),
            *self._cors.actual(visit.origin),
        ]
        self._finish(visit, error.status, headers, b"" if visit.method == "HEAD" else body, protocol)
