"""The gateway's face: every request comes in here, and every answer goes out.

All that clients, Valkey and services are waited for is waited for on one event loop, each wait with a time limit, so
that nobody who is slow holds up anybody else. The order of work is the contract's: request ids, CORS preflight, rate
limit, token, revocation, policy, proxy, audit event, log.
"""

import asyncio
from collections.abc import Callable, Sequence, Set

from heartguard.codec import encode_error
from heartguard.errors import ServiceError, Unavailable, influx_code
from heartguard.logs import log
from heartguard.services import SERVICES

from .addresses import Addresses
from .answers import Answer
from .bodies import SLOWEST
from .bridge import Bridge
from .cors import Cors
from .guard import Guard
from .headers import VARY, Headers, from_service
from .own_pages import OwnPages
from .proxy import Proxy
from .reports import Reports
from .request import Request
from .routes import is_proxied
from .stored import Stored
from .visit import Visit

PREFIX = SERVICES["gateway"].prefix
MOST_AT_WORK = 1024
"""How many requests may be at work; the next one is told to come back."""

SEND_TIMEOUT = 30.0
"""Seconds that a long answer may take, and then one more for each :data:`.bodies.SLOWEST` bytes that it has."""

Begun = tuple[int, Headers, Stored]
"""The status of a long answer, its headers and itself."""


class Front:
    """The gateway, as its server asks it."""

    def __init__(
        self,
        pages: OwnPages,
        *,
        own_paths: Set[str],
        influx_paths: Set[str],
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
        self._influx_paths = influx_paths
        self._proxy = proxy
        self._addresses = addresses
        self._cors = cors
        self._guard = guard
        self._reports = reports
        self._bridge = bridge
        self._closing = closing
        self._at_work = 0

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """All that follows is done on that loop."""
        self._bridge.leads_to(loop)

    def close(self) -> None:
        for close in self._closing:
            close()

    async def answer(self, request: Request) -> None:
        visit = Visit(request, self._addresses)
        self._at_work += 1
        try:
            if (begun := await self._begin(visit)) is not None:
                await self._send(visit, *begun)
        finally:
            self._at_work -= 1
            if not request.answered:
                request.abort()

    async def _begin(self, visit: Visit) -> Begun | None:
        """Answer; a long answer is returned, to be sent."""
        try:
            if self._at_work > MOST_AT_WORK:
                raise Unavailable
            await self._check(visit)
            if visit.method == "OPTIONS":
                self._finish(visit, 204, [*visit.told(), *self._cors.preflight(visit.origin)], b"")
            elif is_proxied(visit.path):
                return self._pass_back(visit, await self._proxy.answer(visit))
            else:
                await self._own_page(visit)
        except ServiceError as error:
            self._refuse(visit, error)
        except Exception as error:  # noqa: BLE001 - whatever happens, the client gets the contract's error
            log.error("failure", status=500, request_id=visit.request_id, exc_info=error)
            self._refuse(visit, ServiceError(500))
        return None

    async def _check(self, visit: Visit) -> None:
        try:
            visit.check()
        except ServiceError:  # counts against the limit, as all that leads nowhere
            await self._guard.limit(visit)
            raise

    def _pass_back(self, visit: Visit, answer: Answer) -> Begun | None:
        headers = from_service(answer.headers)
        headers += visit.told()
        headers += self._cors.actual(visit.origin)
        if answer.stored is not None:
            return answer.status, headers, answer.stored
        self._finish(visit, answer.status, headers, answer.body, answer.length if visit.method == "HEAD" else None)
        return None

    async def _own_page(self, visit: Visit) -> None:
        """Let Flask answer, and report; what nobody stated counts against the limit."""
        if visit.path not in self._own_paths:
            await self._guard.limit(visit)
        status, headers, body, length = await self._pages.answer(visit)
        visit.request.answer(status, [*headers, *visit.told(), *self._cors.actual(visit.origin)], body, length)

    def _finish(self, visit: Visit, status: int, headers: Headers, body: bytes, length: int | None = None) -> None:
        visit.request.answer(status, headers, body, length)
        self._reports.report(visit, status)

    async def _send(self, visit: Visit, status: int, headers: Headers, stored: Stored) -> None:
        """Send a long answer. An error ends the connection: what has been sent cannot be taken back."""
        request = visit.request
        try:
            request.begin(status, headers, stored.length)
            async with asyncio.timeout(SEND_TIMEOUT + stored.length / SLOWEST):
                while piece := await stored.read():
                    await request.send(piece)
            request.end()
        except OSError as error:
            request.abort()
            log.info("broken off", request_id=visit.request_id, error=repr(error))
        finally:
            stored.close()
            self._reports.report(visit, status)

    def _refuse(self, visit: Visit, error: ServiceError) -> None:
        if error.status >= 500:
            log.warning("refused", status=error.status, request_id=visit.request_id, error=repr(error.__cause__))
        fmt = visit.format
        influx = influx_code(error.status) if visit.path in self._influx_paths else None
        body = encode_error(error.body(PREFIX, visit.request_id), fmt, influx)
        headers = [
            ("content-type", fmt.value),
            ("cache-control", "no-store"),
            ("vary", VARY),
            ("x-content-type-options", "nosniff"),
            *((name.lower(), value) for name, value in error.headers.items()),
            *visit.told(),
            *self._cors.actual(visit.origin),
        ]
        self._finish(visit, error.status, headers, body, len(body))
