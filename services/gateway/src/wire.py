"""HTTP/1.1 to a service over one connection of the event loop, parsed by llhttp: the hot path's client."""

import asyncio
import ssl
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from .answers import Answer
from .bodies import Body
from .rsgi import Headers

CONNECT_TIMEOUT = 1.0
WHOLE = 64 * 1024
"""Answers up to this many bytes are passed on in one piece, with a length; longer ones as they come."""
MOST_FRAMING = 64 * 1024
"""Bytes of a head, of trailers, or of chunk headers that bring no data."""
IDLE = 5.0
"""Seconds that a connection may wait for its next request: less than the services' own patience (10 s)."""
ANYTHING = 0

_FRAMING = frozenset({"content-length", "transfer-encoding"})
_NAMES_KEPT = 4096
_names: dict[bytes, str] = {}


def _remembered(name: bytes) -> str:
    lowered = name.decode("ascii").lower()
    if len(_names) < _NAMES_KEPT:
        _names[name] = lowered
    return lowered


class Broken(Exception):
    """There is no connection, or it ended before the answer did."""


class TooSlow(Exception):
    """The service let the time limit pass."""


class Nonsense(ValueError):
    """What came is no answer that could be passed on."""


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
        self._parser = HttpResponseParser(self)
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._idle = self._open = self._full = self._held_up = False
        self._begin("")

    @classmethod
    async def connect(cls, where: Where, timeout: float) -> "Connection":
        """Raises :class:`Broken`."""
        loop = asyncio.get_running_loop()
        encrypted = ssl.create_default_context() if where.scheme == "https" else None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                _, made = await loop.create_connection(lambda: cls(timeout), where.host, where.port, ssl=encrypted)
        except TimeoutError as error:
            raise Broken("no connection in time") from error
        except OSError as error:
            raise Broken(repr(error)) from error
        return made

    def _begin(self, method: str) -> None:
        self._headers: Headers = []
        self._body: list[bytes] = []
        self._held = 0
        self._enough = WHOLE
        self._framing = 0
        self._head_only = method == "HEAD"
        self._begun = self._complete = self._keep = self._surplus = False
        self._until_close = True
        self._idle = False
        self._deadline = self._loop.time() + self._timeout

    def fresh(self) -> bool:
        """Whether it may serve again: not idle for too long, not hung up on, and nothing came unasked."""
        return self._open and self._loop.time() < self._deadline

    async def ask(self, method: str, head: bytes, body: Body) -> Answer:
        """Send a request, and wait for its answer or the beginning of a long one.

        Raises :class:`Broken`, :class:`TooSlow` or :class:`Nonsense`; then the connection is closed.
        """
        self._begin(method)
        try:
            if body.file is None:
                self._transport.write(head + body.content if body.content else head)
            else:
                await self._send(head, body)
            if not self._complete:
                await self._until(WHOLE)
            status = self._parser.get_status_code()
            if not 200 <= status <= 599:
                raise Nonsense(f"status {status}")
        except BaseException:
            self.close()
            raise
        return Answer(status, self._headers, self._taken(), None if self._complete else self)

    async def _send(self, head: bytes, body: Body) -> None:
        """Send a long body. A service may answer, and hang up, before it has all of it."""
        self._transport.write(head)
        for chunk in body.chunks():
            if self._full:
                await self._wait()
            if self._complete or self._failure is not None:
                self._keep = False
                return
            self._deadline = self._loop.time() + self._timeout
            self._transport.write(chunk)
        self._deadline = self._loop.time() + self._timeout

    async def _until(self, held: int) -> None:
        """Wait until more than ``held`` bytes of the answer's body are here, or all of them."""
        while not (self._complete or self._held > held):
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
        return self._open and self._complete and self._keep and not (self._surplus or self._head_only)

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
        held = self._held
        try:
            self._parser.feed_data(received)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._fail(Nonsense(repr(error.__context__ or error)))
            return
        self._framing = self._framing + len(received) if self._held == held else 0
        if self._framing > MOST_FRAMING and not self._complete:
            self._fail(Nonsense("too long a head"))
        elif self._complete or self._held > self._enough:
            self._wake()
        if self._held > WHOLE and not self._held_up and self._open:
            self._held_up = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        self._ended("the connection ended before the answer's end")

    def connection_lost(self, error: Exception | None) -> None:
        self._ended("the connection ended before the answer's end" if error is None else repr(error))

    def _ended(self, why: str) -> None:
        if not self._complete:
            if self._begun and self._until_close and self._failure is None:
                self._complete = True
                self._wake()
            else:
                self._fail(Broken(why))
        self._keep = False
        self.close()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._wake()

    # What the parser calls

    def on_message_begin(self) -> None:
        self._surplus = self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._begun:  # else it is a trailer
            self._headers.append((_names.get(name) or _remembered(name), value.decode("ascii")))

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        if self._parser.get_status_code() < 200:
            self._headers.clear()
            return
        self._begun = True
        for name, value in self._headers:
            if name in _FRAMING:
                self._until_close = False
                if name == "transfer-encoding" and value.lower() != "chunked":
                    raise Nonsense(name)
        if self._head_only:
            self._complete = True

    def on_body(self, piece: bytes) -> None:
        if not (self._head_only or self._surplus):
            self._body.append(piece)
            self._held += len(piece)

    def on_message_complete(self) -> None:
        if self._begun:
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    # The rest of a long answer

    async def read(self) -> bytes | None:
        """The next piece, None at the end."""
        self._deadline = self._loop.time() + self._timeout
        await self._until(ANYTHING)
        return self._taken() or None

    def _taken(self) -> bytes:
        taken = b"".join(self._body)
        self._body.clear()
        self._held = 0
        if self._held_up and self._open:
            self._held_up = False
            self._transport.resume_reading()
        return taken

    def close(self) -> None:
        self._open = False
        self._timer.cancel()
        self._transport.abort()
