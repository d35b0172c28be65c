"""A client's connection: its requests, parsed by llhttp, and their answers, one after the other."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from email.utils import formatdate
from http import HTTPStatus
from math import inf
from typing import Any, cast

from httptools import (
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserInvalidURLError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from heartguard.errors import Malformed, ServiceError

from .cors import METHODS
from .headers import Headers, lower, written
from .request import NO_TARGET, Request

HEAD_TIMEOUT = 10.0
"""Seconds that a request's head may take."""
IDLE = 75.0
"""Seconds that a connection may wait for its next request: more than the 60 that proxies keep theirs."""
SEND_TIMEOUT = 30.0
"""Seconds that a client may take to make room for more of an answer."""
LINGER = 5.0
"""Seconds in which a client that still sends may read why it should not: closed at once, it would never see that."""
MOST_HEAD = 64 * 1024
"""Bytes of a head, or of what frames a body and brings nothing of it."""
MOST_TARGET = 16 * 1024
"""Bytes of the head that its target may have."""
MOST_HEADERS = 100
PIPELINED = 32
"""How many requests of a connection may wait for the one before them. The rest is not answered."""

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}
_WITHOUT_BODY = frozenset({204, 304})
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Answering = Callable[[Request], Coroutine[Any, Any, None]]


class Clients:
    """The connections of one event loop. ``most`` may be open at once; ``now`` and ``date`` are up to a second old."""

    def __init__(self, answering: Answering, most: int) -> None:
        self.answering = answering
        self._most = most
        self._open: dict[Client, None] = {}
        self._all_gone: asyncio.Event | None = None
        self._ending = False
        self._look()

    def __call__(self) -> "Client":
        return Client(self)

    def _look(self) -> None:
        """Every second: tell the time, and those to whom it has run out."""
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time()
        self.date = formatdate(usegmt=True)
        for client in list(self._open):
            if client.deadline < self.now:
                client.give_up()
        self._timer = self._loop.call_later(1, self._look)

    def entered(self, client: "Client") -> None:
        if len(self._open) >= self._most and (idle := next((one for one in self._open if one.is_idle), None)):
            idle.abort()
            self._open.pop(idle, None)
        if len(self._open) >= self._most or self._ending:
            client.abort()
        else:
            self._open[client] = None

    def left(self, client: "Client") -> None:
        self._open.pop(client, None)
        if self._all_gone is not None and not self._open:
            self._all_gone.set()

    async def finish(self, patience: float) -> None:
        """Answer what has been asked, and end all connections, within ``patience`` seconds."""
        self._ending = True
        self._all_gone = asyncio.Event()
        for client in list(self._open):
            client.finish()
        if self._open:
            try:
                async with asyncio.timeout(patience):
                    await self._all_gone.wait()
            except TimeoutError:
                for client in list(self._open):
                    client.abort()
        self._timer.cancel()


class Client(asyncio.Protocol):
    """One connection. Its requests are answered one at a time, in their order."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._loop = asyncio.get_running_loop()
        self._parser = HttpRequestParser(self)
        self._coming: Request | None = None
        """The request whose body is coming in, or came in last."""
        self._at_work: Request | None = None
        self._waiting: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._last = self._deaf = self._ended = self._gone = self._closing = False
        """``_last``: no further request is taken; ``_deaf``: nothing that comes is read; ``_ended``: nothing will
        come."""
        self._held_up = self._full = self._in_head = False
        self._room: asyncio.Future[None] | None = None
        self._unsent = 0
        """Bytes of the last answer that the client had still to take when it was looked at."""
        self._framing = 0
        """Bytes of a head, or that have come since the last of a body."""
        self._fresh = 0
        """Bytes that came last, as far as they may count as that."""
        self.deadline = clients.now + HEAD_TIMEOUT

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.peer = str((transport.get_extra_info("peername") or ("",))[0])
        self.server: tuple[str, int] = transport.get_extra_info("sockname")[:2]
        self._clients.entered(self)

    def data_received(self, received: bytes) -> None:
        if self._deaf:
            return
        self._fresh = len(received)
        try:
            self._parser.feed_data(received)
        except HttpParserUpgrade as upgrade:
            self._ignore_upgrade(received[upgrade.args[0] :])
        except HttpParserError as error:
            if not self._deaf:
                self._refuse(_problem(error))
        else:
            self._framing += self._fresh
            if self._framing > MOST_HEAD and (self._in_head or self._in_body):
                self._refuse(_too_long(self._target, {}) or ServiceError(431))

    def eof_received(self) -> bool:
        """Whether the connection stays open for what is still to be answered."""
        self._last = self._deaf = self._ended = True
        if self._coming is not None:
            self._coming.fail()
        return not (self._closing or self.is_idle)

    def connection_lost(self, _error: Exception | None) -> None:
        self._gone = self._deaf = True
        self._clients.left(self)
        self._waiting.clear()
        if self._coming is not None:
            self._coming.fail()
        self._make_way()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._make_way()
        if self._at_work is None and not self._closing:
            self._rest()
            self._next()

    def _make_way(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    # What the parser calls

    def on_message_begin(self) -> None:
        self._in_head = True
        self._framing = 0
        self._target = b""
        self._headers: dict[str, str] = {}
        self._unreadable: frozenset[str] = frozenset()
        self._count = 0
        if self._at_work is None:
            self.deadline = self._clients.now + HEAD_TIMEOUT
        self._deaf = self._deaf or self._last

    def on_url(self, piece: bytes) -> None:
        self._target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer
        self._count += 1
        if self._count > MOST_HEADERS:
            raise _TooMany
        known = lower(name)
        try:
            text = value.decode("ascii")
        except UnicodeDecodeError:
            self._unreadable |= {known}
            return
        headers = self._headers
        if known in headers:
            text = f"{headers[known]}{'; ' if known == 'cookie' else ','}{text}"
        headers[known] = text

    def on_headers_complete(self) -> None:
        self._in_head = False
        may_be_long = self._framing + self._fresh > MOST_TARGET
        self._framing = self._fresh = 0
        if self._deaf:
            return
        parser = self._parser
        request = Request(
            self,
            parser.get_method().decode("ascii"),
            self._target.decode("ascii"),
            self._headers,
            version=parser.get_http_version(),
            unreadable=self._unreadable,
            keep=parser.should_keep_alive(),
        )
        if may_be_long:
            request.problem = request.problem or _too_long(self._target, self._headers)
        if b"#" in self._target:
            request.problem = Malformed("The target has a fragment")
        if request.version != "1.1":
            request.problem = _too_old(request) or request.problem
        if "transfer-encoding" in self._unreadable:
            request.problem = Malformed("Transfer-Encoding can only be chunked")
        self._coming = request
        self._enter(request)

    def on_body(self, piece: bytes) -> None:
        self._framing = self._fresh = 0
        if self._coming is not None and not self._deaf:
            self._coming.add(piece)

    def on_message_complete(self) -> None:
        self._fresh = 0
        if self._coming is not None and not self._parser.should_upgrade():
            self._coming.finish()

    # Requests that are read in an own way, or not at all

    def _ignore_upgrade(self, rest: bytes) -> None:
        """The parser leaves a request that would change the protocol after its head, also one that has a body."""
        request = self._coming
        if request is None or self._deaf:
            return
        self._last = True
        request.keep = False
        self._parser = HttpRequestParser(_BodyOnly(self))
        self.data_received(written("POST / HTTP/1.1", _framing(request.headers)) + rest)

    def on_last_complete(self) -> None:
        """The body that :meth:`_ignore_upgrade` awaits is here."""
        self.on_message_complete()
        self._deaf = True

    def _refuse(self, problem: ServiceError) -> None:
        """Nothing more can be read. In the middle of a body, its request is the one that is told."""
        self._last = self._deaf = True
        if self._coming is not None and self._in_body:
            self._coming.fail()
        else:
            self._enter(Request(self, "", NO_TARGET, {}, problem=problem))

    # One request after the other

    def _enter(self, request: Request) -> None:
        if self._at_work is None and not self._full:
            self._begin(request)
        elif len(self._waiting) < PIPELINED:
            self._waiting.append(request)
            self.hold_up()
        else:
            self._last = self._deaf = True

    def _begin(self, request: Request) -> None:
        self._at_work = request
        self.deadline = inf
        self._task = self._loop.create_task(self._clients.answering(request))

    def _rest(self) -> None:
        """Give the client time: to take the answer, or else to ask again, or to come to the end of what it asks."""
        time = SEND_TIMEOUT if self._full else HEAD_TIMEOUT if self._in_head else IDLE
        self.deadline = self._clients.now + time

    def _next(self) -> None:
        if self._waiting and not self._full:
            self._begin(self._waiting.popleft())
        self.make_room()

    @property
    def _in_body(self) -> bool:
        return self._coming is not None and not self._coming.complete and not self._in_head

    @property
    def is_idle(self) -> bool:
        return self._at_work is None and not self._waiting

    def finish(self) -> None:
        """Take no further request; end when those that have come are answered."""
        self._last = True
        if self.is_idle:
            self._close()

    def give_up(self) -> None:
        """Time has run out: for a request's head, between two, or for the end of an answer."""
        unsent = self._transport.get_write_buffer_size()
        if self._in_head and not self._last:
            self._refuse(ServiceError(408, "The request did not come in time"))
        elif self._closing and unsent and unsent != self._unsent:
            self._unsent = unsent
            self.deadline = self._clients.now + SEND_TIMEOUT
        else:
            self.abort()

    # What a request asks for

    def hold_up(self) -> None:
        if not self._held_up and not self._transport.is_closing():
            self._held_up = True
            self._transport.pause_reading()

    def make_room(self) -> None:
        if self._held_up and not self._waiting and not self._transport.is_closing():
            self._held_up = False
            self._transport.resume_reading()

    def invite(self) -> None:
        if not self._gone:
            self._transport.write(_CONTINUE)

    def answer(self, request: Request, status: int, headers: Headers, body: bytes, length: int | None) -> None:
        if request.method == "HEAD":
            body = b""
        elif status not in _WITHOUT_BODY:
            length = len(body)
        else:
            body, length = b"", None
        head = self._head(request, status, headers, length)
        if not self._gone:
            self._transport.write(head + body)
        self.end(request)

    def begin(self, request: Request, status: int, headers: Headers, length: int) -> None:
        head = self._head(request, status, headers, length)
        request.answered = True
        if not self._gone:
            self._transport.write(head)

    async def send(self, piece: bytes) -> None:
        if self._gone:
            raise ConnectionResetError("the client has gone")
        self._transport.write(piece)
        if self._full:
            self._room = self._loop.create_future()
            async with asyncio.timeout(SEND_TIMEOUT):
                await self._room

    def end(self, request: Request) -> None:
        """The answer is out, as far as the client takes it."""
        request.answered = True
        self._at_work = None
        if not request.keep:
            self._close()
            return
        self._rest()
        self._next()

    def abort(self) -> None:
        self._closing = self._deaf = True
        self._transport.abort()

    def _head(self, request: Request, status: int, headers: Headers, length: int | None) -> bytes:
        whole = request.complete and request.problem is None
        request.keep = request.keep and whole and not (self._last and not self._waiting)
        fields = [*headers, ("date", self._clients.date)]
        if length is not None:
            fields.append(("content-length", str(length)))
        if not request.keep:
            fields.append(("connection", "close"))
        elif request.version == "1.0":
            fields.append(("connection", "keep-alive"))
        return written(_STATUS_LINES.get(status) or f"HTTP/1.1 {status} ", fields)

    def _close(self) -> None:
        """End the connection, once all is sent; with a client that may still send, not before it could read that."""
        if self._closing or self._gone:
            return
        self._closing = True
        self._waiting.clear()
        self.deadline = self._clients.now + (SEND_TIMEOUT if self._full else LINGER)
        still_sends = self._deaf or (self._coming is not None and not self._coming.complete)
        if still_sends and not self._ended:
            self._deaf = True
            self._transport.write_eof()
            self.make_room()
        else:
            self._transport.close()


class _BodyOnly:
    """What a client wants to hear of a request whose head it knows."""

    def __init__(self, client: Client) -> None:
        self.on_body = client.on_body
        self.on_message_complete = client.on_last_complete


def _framing(headers: Mapping[str, str]) -> Headers:
    """What says where a request's body ends."""
    name = "transfer-encoding" if "transfer-encoding" in headers else "content-length"
    return [(name, headers.get(name, "0"))]


class _TooMany(Exception):
    """More headers than :data:`MOST_HEADERS`."""


def _too_long(target: bytes, headers: Mapping[str, str]) -> ServiceError | None:
    if len(target) > MOST_TARGET:
        return ServiceError(414)
    return ServiceError(431) if sum(map(len, headers.values())) > MOST_HEAD else None


def _too_old(request: Request) -> ServiceError | None:
    """What is wrong with a request in a version of HTTP before 1.1."""
    if request.version != "1.0":
        return ServiceError(505, "Speak HTTP/1.1")
    return Malformed("HTTP/1.0 has no chunks") if "transfer-encoding" in request.headers else None


def _problem(error: HttpParserError) -> ServiceError:
    """What is wrong with a request that the parser does not take. It is strict: it knows each only one way to read."""
    if isinstance(error.__context__, _TooMany):
        return ServiceError(431)
    if isinstance(error, HttpParserInvalidURLError):
        return Malformed("The target has characters that must be percent-encoded")
    if isinstance(error, HttpParserInvalidMethodError):
        return ServiceError(405, headers={"Allow": METHODS})
    return Malformed("The request cannot be read")
