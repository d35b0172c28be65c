"""HTTP/1.1 to a service over one plain socket, parsed by llhttp: the hot path's client.

The calling thread writes and reads by itself. A client library with threads of its own hands every
request over twice, which alone costs more than all of this (see the benchmarks).
"""

import socket
import ssl
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from heartguard.sockets import Quick

from .answers import Answer, Headers
from .bodies import Body

CONNECT_TIMEOUT = 1.0
PIECE = 64 * 1024
WHOLE = 64 * 1024
"""Answers up to this many bytes are passed on in one piece, with a length; longer ones as they come."""
MOST_FRAMING = 64 * 1024
"""Bytes of a head, of trailers, or of chunk headers that bring no data."""
IDLE = 5.0
"""Seconds that a connection may wait for its next request: less than the services' own patience (10 s)."""


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


class Connection:
    """One connection, for one request at a time. Not thread-safe.

    Every single wait is limited by ``timeout`` seconds, and so is the time until an answer has begun.
    """

    def __init__(self, where: Where, timeout: float) -> None:
        self._timeout = timeout
        self._socket = _open(where, timeout)
        self._quick = None if isinstance(self._socket, ssl.SSLSocket) else Quick(self._socket)
        self._parser = HttpResponseParser(self)
        self._idle_since = 0.0
        self._begin("")

    def _begin(self, method: str) -> None:
        self._headers: Headers = []
        self._body: list[bytes] = []
        self._held = 0
        self._framing = 0
        self._head_only = method == "HEAD"
        self._begun = self._complete = self._keep = self._surplus = False
        self._until_close = True

    def fresh(self) -> bool:
        """Whether it may serve again: not idle for too long, not hung up on, and nothing came unasked."""
        if time.monotonic() - self._idle_since > IDLE:
            return False
        return self._quick is None or self._quick.received() is None

    def ask(self, method: str, head: bytes, body: Body) -> Answer:
        """Send a request, and wait for its answer or the beginning of a long one.

        Raises :class:`Broken`, :class:`TooSlow` or :class:`Nonsense`; then the connection is closed.
        """
        self._begin(method)
        try:
            self._send(head, body)
            deadline = time.monotonic() + self._timeout
            while not (self._complete or self._held > WHOLE):
                self._receive()
                if not self._complete and time.monotonic() > deadline:
                    raise TooSlow
            status = self._parser.get_status_code()
            if not 200 <= status <= 599:
                raise Nonsense(f"status {status}")
        except BaseException:
            self.close()
            raise
        return Answer(status, self._headers, self._taken(), None if self._complete else self)

    def _send(self, head: bytes, body: Body) -> None:
        try:
            if body.file is None:
                (self._quick or self._socket).sendall(head + body.content if body.content else head)
                return
            self._socket.sendall(head)
            for chunk in body.chunks():
                self._socket.sendall(chunk)
        except (BlockingIOError, TimeoutError, ssl.SSLWantWriteError) as error:
            raise TooSlow from error
        except OSError as error:
            if body.file is None:
                raise Broken(repr(error)) from error
            # The service hung up in the middle of a long body: most likely it has said why.

    def _receive(self) -> None:
        held = self._held
        try:
            received = self._socket.recv(PIECE)
        except (BlockingIOError, TimeoutError, ssl.SSLWantReadError) as error:
            raise TooSlow from error
        except OSError as error:
            raise Broken(repr(error)) from error
        if not received:
            self._ended()
            return
        try:
            self._parser.feed_data(received)
        except (HttpParserError, HttpParserUpgrade) as error:
            raise Nonsense(repr(error.__context__ or error)) from error
        self._framing = self._framing + len(received) if self._held == held else 0
        if self._framing > MOST_FRAMING and not self._complete:
            raise Nonsense("too long a head")

    def _ended(self) -> None:
        self._keep = False
        if not (self._begun and self._until_close):
            raise Broken("the connection ended before the answer's end")
        self._complete = True

    def reusable(self) -> bool:
        """Whether the answer is over, and another may follow."""
        if not (self._complete and self._keep) or self._surplus or self._head_only:
            return False
        self._idle_since = time.monotonic()
        return True

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

    def read(self) -> bytes | None:
        """The next piece, None at the end."""
        while not (self._body or self._complete):
            self._receive()
        return self._taken() or None

    def _taken(self) -> bytes:
        taken = b"".join(self._body)
        self._body.clear()
        self._held = 0
        return taken

    def close(self) -> None:
        if self._quick is not None:
            self._quick.forget()
        with suppress(OSError):
            self._socket.close()


def _open(where: Where, timeout: float) -> socket.socket:
    try:
        opened = socket.create_connection((where.host, where.port), CONNECT_TIMEOUT)
    except TimeoutError as error:
        raise Broken("no connection in time") from error
    except OSError as error:
        raise Broken(repr(error)) from error
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if where.scheme == "https":
        return _encrypt(opened, where.host, timeout)
    # The kernel enforces the time limit: Python's own costs a `poll` before each call.
    opened.settimeout(None)
    limit = struct.pack("ll", int(timeout), int(timeout % 1 * 1_000_000))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    return opened


def _encrypt(opened: socket.socket, host: str, timeout: float) -> socket.socket:
    try:
        opened.settimeout(CONNECT_TIMEOUT)
        encrypted = ssl.create_default_context().wrap_socket(opened, server_hostname=host)
    except OSError as error:
        opened.close()
        raise Broken(repr(error)) from error
    encrypted.settimeout(timeout)
    return encrypted
