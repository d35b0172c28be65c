"""HTTP/1.1 to a service over one connection of the event loop: the hot path's client."""

import asyncio
import ssl
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from .answers import Answer
from .bodies import Body
from .incoming import Incoming, Nonsense

CONNECT_TIMEOUT = 1.0
WHOLE = 64 * 1024
"""Answers up to this many bytes are passed on in one piece, with a length; longer ones as they come."""
IDLE = 5.0
"""Seconds that a connection may wait for its next request: less than the services' own patience (10 s)."""
ANYTHING = 0
ENDED = "the connection ended before the answer's end"


class Broken(Exception):
    """There is no connection, or it ended before the answer did."""


class NotTaken(Broken):
    """The request was hardly taken: there is no connection, or a kept one ended before a byte of the answer."""


class TooSlow(Exception):
    """The service let the time limit pass."""


@dataclass(frozen=True)
class Where:
    """A service's address."""

    scheme: str
    host: str
    port: int
    authority: str
    base: str

    @classmethod
    def parse(cls, url: str) -> "Where":
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(parts.scheme, parts.hostname or "", port, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"))


class Connection(asyncio.Protocol):
    """One connection, for one request at a time.

    Every single wait is limited by ``timeout`` seconds, and so is the time until an answer has begun. One timer
    watches over both, and over the time that the connection is idle; it is set anew only when it has run out.
    """

    def __init__(self, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._answer = Incoming()
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._idle = self._open = self._full = self._held_up = self._cut = self._kept = self._heard = False
        self._enough = WHOLE
        self._deadline = self._loop.time() + timeout

    @classmethod
    async def connect(cls, where: Where, timeout: float) -> "Connection":
        """Raises :class:`NotTaken`."""
        loop = asyncio.get_running_loop()
        encrypted = ssl.create_default_context() if where.scheme == "https" else None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                _, made = await loop.create_connection(lambda: cls(timeout), where.host, where.port, ssl=encrypted)
        except TimeoutError as error:
            raise NotTaken("no connection in time") from error
        except OSError as error:
            raise NotTaken(repr(error)) from error
        return made

    def fresh(self) -> bool:
        """Whether it may serve again: not idle for too long, not hung up on, and nothing came unasked."""
        return self._open and self._loop.time() < self._deadline

    async def ask(self, method: str, head: bytes, body: Body) -> Answer:
        """Send a request, and wait for its answer or the beginning of a long one.

        Raises :class:`Broken`, :class:`TooSlow` or :class:`Nonsense`; then the connection is closed.
        """
        self._answer.expect(method)
        self._kept, self._idle, self._heard = self._idle, False, False
        self._enough = WHOLE
        self._deadline = self._loop.time() + self._timeout
        try:
            if body.file is None:
                self._transport.write(head + body.content if body.content else head)
            else:
                await self._send(head, body)
            if not self._answer.complete:
                await self._until(WHOLE)
            status = self._answer.status
            if not 200 <= status <= 599:
                raise Nonsense(f"status {status}")
        except BaseException:
            self.close()
            raise
        return Answer(status, self._answer.headers, self._taken(), None if self._answer.complete else self)

    async def _send(self, head: bytes, body: Body) -> None:
        """Send a long body. A service may answer, and hang up, before it has all of it."""
        self._transport.write(head)
        for chunk in body.chunks():
            if self._full:
                await self._wait()
            if self._answer.complete or self._failure is not None:
                self._cut = True
                return
            self._deadline = self._loop.time() + self._timeout
            self._transport.write(chunk)
        self._deadline = self._loop.time() + self._timeout

    async def _until(self, held: int) -> None:
        """Wait until more than ``held`` bytes of the answer's body are here, or all of them."""
        while not (self._answer.complete or self._answer.held > held):
            self._enough = held
            await self._wait()

    def _wait(self) -> asyncio.Future[None]:
        """What is to be awaited until something has happened."""
        if self._failure is not None:
            raise self._failure
        self._waiter = self._loop.create_future()
        return self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        """Nothing more can come, or may."""
        self._failure = self._failure or error
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(self._failure)
        self.close()

    def reusable(self) -> bool:
        """Whether the answer is over, and another may follow."""
        return self._open and self._answer.another_may_follow and not self._cut

    def rest_until_asked(self) -> None:
        """Be idle."""
        self._idle = True
        self._deadline = self._loop.time() + IDLE

    def _look(self) -> None:
        left = self._deadline - self._loop.time()
        if left <= 0 and self._waiter is not None:
            self._fail(TooSlow())
        elif left <= 0 and self._idle:
            self.close()
        else:
            self._timer = self._loop.call_later(left if left > 0 else self._timeout, self._look)

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._open = True
        self._timer = self._loop.call_later(self._timeout, self._look)

    def data_received(self, received: bytes) -> None:
        if self._idle:
            self.close()  # nobody asked
            return
        self._heard = True
        answer = self._answer
        try:
            answer.feed(received)
        except Nonsense as error:
            self._fail(error)
            return
        if answer.complete or answer.held > self._enough:
            self._wake()
        if answer.held > WHOLE and not self._held_up:
            self._held_up = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        self._answer.end()
        if self._answer.complete:
            self._wake()
        self._lost(ENDED)

    def connection_lost(self, error: Exception | None) -> None:
        self._lost(repr(error) if error else ENDED)

    def _lost(self, why: str) -> None:
        if self._answer.complete:
            self.close()
        else:
            self._fail(NotTaken(why) if self._kept and not self._heard else Broken(why))

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._wake()

    # The rest of a long answer

    async def read(self) -> bytes | None:
        """The next piece, None at the end."""
        self._deadline = self._loop.time() + self._timeout
        await self._until(ANYTHING)
        return self._taken() or None

    def _taken(self) -> bytes:
        taken = self._answer.take()
        if self._held_up and self._open:
            self._held_up = False
            self._transport.resume_reading()
        return taken

    def close(self) -> None:
        self._open = False
        self._timer.cancel()
        self._transport.abort()
