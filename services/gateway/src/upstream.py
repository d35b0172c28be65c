"""The services behind the gateway: pooled connections to each, and what can go wrong with them."""

import asyncio
import re
import time
from urllib.parse import quote

from heartguard.errors import Malformed, ServiceError, Unavailable
from heartguard.logs import log
from heartguard.services import SERVICES

from . import instruments
from .answers import Answer
from .bodies import NONE, Body
from .breaker import Breaker
from .headers import Headers, written
from .incoming import Nonsense
from .stored import Storage
from .wire import Broken, Connection, NotTaken, TooSlow, Where

AT_ONCE = 64
"""How many requests a service may be asked at once, and connections that are kept for more; the others wait."""
BODILESS = frozenset({"GET", "HEAD"})
IDEMPOTENT = BODILESS | {"PUT", "DELETE"}

_NOT_IN_TARGET = re.compile(r"[^\x21-\x7e]")


class Upstream:
    """One service, for one event loop."""

    def __init__(self, name: str, base_url: str, timeout: float, storage: Storage) -> None:
        self.name = name
        self._storage = storage
        self._where = Where.parse(base_url)
        self._timeout = timeout
        self._idle: list[Connection] = []
        self._places = asyncio.Semaphore(AT_ONCE)
        self._breaker = Breaker(name)
        self._timer = instruments.UPSTREAM.labels(name)
        self._failures = instruments.UPSTREAM_FAILURES.labels(name)

    async def send(self, method: str, target: str, headers: Headers, body: Body) -> Answer:
        """Ask the service. ``target`` is the path, encoded, with the query string.

        Raises 502 (no connection, or nonsense), 503 (open circuit, too many ask, or no room for the answer) or 504 (no
        answer in time); 400 where the request cannot be written down. Where the connection failed, not where time ran
        out, a request is sent once more: one that only reads, and another idempotent one if it was hardly taken.
        """
        head = self._head(method, target, headers, body)
        if self._places.locked():
            await self._turn()
        else:
            await self._places.acquire()
        try:
            self._breaker.enter()
            begun = time.perf_counter()
            answer = await self._asked(method, head, body)
        finally:
            self._places.release()
        self._breaker.succeeded()
        answer.seconds = time.perf_counter() - begun
        self._timer.observe(answer.seconds)
        return answer

    async def _turn(self) -> None:
        """Wait for a place."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._places.acquire()
        except TimeoutError:
            raise Unavailable(f"The {self.name} service has too much to do") from None

    async def check(self, timeout: float) -> None:
        """Raise unless the service says within ``timeout`` seconds that it can work."""
        connection = await Connection.connect(self._where, timeout)
        try:
            head = self._head("GET", f"{SERVICES[self.name].path}/ready", [("connection", "close")], NONE)
            status = (await connection.ask("GET", head, NONE)).status
        finally:
            connection.close()
        if status != 200:
            raise Unavailable(f"{self.name} answered {status}")

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _head(self, method: str, target: str, headers: Headers, body: Body) -> bytes:
        fields = [("host", self._where.authority), *headers]
        if method not in BODILESS:
            fields.append(("content-length", str(body.length)))
        if _NOT_IN_TARGET.search(target):
            target = _NOT_IN_TARGET.sub(lambda found: quote(found[0]), target)
        try:
            return written(f"{method} {self._where.base}{target} HTTP/1.1", fields)
        except ValueError as error:
            raise Malformed("The request cannot be passed on") from error

    async def _asked(self, method: str, head: bytes, body: Body) -> Answer:
        try:
            try:
                return await self._attempt(self._kept() or await self._new(), method, head, body)
            except Broken as error:
                if not (method in BODILESS or (method in IDEMPOTENT and isinstance(error, NotTaken))):
                    raise
            return await self._attempt(await self._new(), method, head, body)
        except BaseException as error:
            raise self._failure(error) from error

    def _kept(self) -> Connection | None:
        """A connection that served before, if there is one that still can."""
        while self._idle:
            connection = self._idle.pop()
            if connection.fresh():
                return connection
            connection.close()
        return None

    async def _new(self) -> Connection:
        return await Connection.connect(self._where, self._timeout)

    async def _attempt(self, connection: Connection, method: str, head: bytes, body: Body) -> Answer:
        answer = await connection.ask(method, head, body)
        if answer.rest is not None:
            try:
                answer.stored = await self._storage.take_in(answer)
            except BaseException:
                connection.close()
                raise
        self.release(connection)
        return answer

    def release(self, connection: Connection) -> None:
        if connection.reusable() and len(self._idle) < AT_ONCE:
            connection.rest_until_asked()
            self._idle.append(connection)
        else:
            connection.close()

    def _failure(self, error: BaseException) -> BaseException:
        """What the client hears of ``error``; a :class:`ServiceError` is our own, for want of room."""
        if isinstance(error, ServiceError):
            self._breaker.succeeded()
            return error
        self._breaker.failed()
        self._failures.inc()
        if not isinstance(error, Broken | TooSlow | Nonsense | ValueError):
            return error
        log.warning("upstream", upstream=self.name, error=repr(error))
        return ServiceError(504 if isinstance(error, TooSlow) else 502)
