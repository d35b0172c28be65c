"""A client's request: what it asks, its body as it comes, and the way back for the answer."""

import asyncio
from typing import Protocol
from urllib.parse import unquote, urlsplit

from heartguard.errors import Malformed, ServiceError

from .headers import Headers

MOST_WAITING = 64 * 1024
"""Bytes of a body that may wait to be read before no more are taken off the connection."""
NO_TARGET = "/"


class Line(Protocol):
    """The connection that a request came on. ``peer`` is the address at its other end, ``server`` host and port at
    this one."""

    peer: str
    server: tuple[str, int]

    def make_room(self) -> None:
        """The body was read as far as it was here."""

    def hold_up(self) -> None:
        """Take no more of the body off the connection for now."""

    def invite(self) -> None:
        """Tell a client that waits for it to send the body."""

    def answer(self, request: "Request", status: int, headers: Headers, body: bytes, length: int | None) -> None: ...

    def begin(self, request: "Request", status: int, headers: Headers, length: int) -> None: ...

    async def send(self, piece: bytes) -> None: ...

    def end(self, request: "Request") -> None: ...

    def abort(self) -> None: ...


class Request:
    """One request. ``headers`` holds one value for each name, in lower case; ``path`` is decoded, ``query`` is not.

    ``unreadable`` names the headers whose values are not ASCII, which are left out. Where it could not be read at all
    there is a ``problem``, and the rest says nothing.
    """

    __slots__ = (
        "_expects", "_failed", "_held", "_line", "_pieces", "_waiter", "answered", "complete", "headers", "keep",
        "method", "path", "problem", "query", "unreadable", "version",
    )  # fmt: skip

    def __init__(
        self, line: Line, method: str, target: str, headers: dict[str, str], *, version: str = "1.1",
        unreadable: frozenset[str] = frozenset(), keep: bool = False, problem: ServiceError | None = None,
    ) -> None:  # fmt: skip
        self._line = line
        self.method = method
        self.headers = headers
        self.version = version
        self.unreadable = unreadable
        self.keep = keep
        self.problem = problem
        self.complete = self.answered = self._failed = False
        self._pieces: list[bytes] = []
        self._held = 0
        self._waiter: asyncio.Future[None] | None = None
        self._expects = "expect" in headers and version == "1.1" and headers["expect"].lower() == "100-continue"
        if not target.startswith("/"):
            target = self._other_form(target)
        path, _, self.query = target.partition("?")
        self.path = unquote(path) if "%" in path else path

    def _other_form(self, target: str) -> str:
        """The path and query of a target that is no path (RFC 9112, section 3.2)."""
        if target == "*":
            return target
        parts = urlsplit(target)
        if parts.scheme not in {"http", "https"} or not parts.netloc or "@" in parts.netloc:
            self.problem = self.problem or Malformed("The target is no path")
            return NO_TARGET
        if "," not in self.headers.get("host", ""):  # two are refused, whatever the target says
            self.headers["host"] = parts.netloc
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    @property
    def peer(self) -> str:
        return self._line.peer

    @property
    def server(self) -> tuple[str, int]:
        return self._line.server

    # As the body comes

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held > MOST_WAITING:
            self._line.hold_up()
        self._wake()

    def finish(self) -> None:
        """All of the body is here."""
        self.complete = True
        self._wake()

    def fail(self) -> None:
        """No more of the body can come."""
        self._failed = not self.complete
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def read(self) -> bytes:
        """The next piece of the body, empty at its end. Raises ``ConnectionError`` where it breaks off."""
        while not self._pieces:
            if self.complete:
                return b""
            if self._failed:
                raise ConnectionError("The body breaks off")
            if self._expects:
                self._expects = False
                self._line.invite()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        piece = b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        self._line.make_room()
        return piece

    # The answer

    def answer(self, status: int, headers: Headers, body: bytes, length: int | None = None) -> None:
        """Answer. ``length`` is what a ``HEAD`` is told, where that is known."""
        self._line.answer(self, status, headers, body, length)

    def begin(self, status: int, headers: Headers, length: int) -> None:
        """Begin a long answer of ``length`` bytes, which :meth:`send` gives out and :meth:`end` ends."""
        self._line.begin(self, status, headers, length)

    async def send(self, piece: bytes) -> None:
        """Returns once the client has taken most of it. ``OSError`` where it has gone, or takes too long."""
        await self._line.send(piece)

    def end(self) -> None:
        self._line.end(self)

    def abort(self) -> None:
        """End the connection in the middle of the answer, or without one."""
        self._line.abort()
