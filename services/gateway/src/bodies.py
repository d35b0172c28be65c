"""Request bodies: whole, and within their limit, before a service hears of the request.

A body that is cut short or too long never reaches a service, and memory stays bounded: what is
longer than :data:`IN_MEMORY` goes to a temporary file.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from tempfile import TemporaryFile
from typing import IO

from heartguard.errors import Malformed, ServiceError, Unavailable

from .rsgi import Protocol

CHUNK = 64 * 1024
IN_MEMORY = 256 * 1024
"""Bytes of a body that are kept in memory."""
PATIENCE = 10.0
"""Seconds that a body may take, and then one more for each :data:`SLOWEST` bytes that have come."""
SLOWEST = 8 * 1024
MOST_DIGITS = 18
"""Of a length; Python refuses to read thousands."""


class Body:
    """A request's body: ``content``, or else a ``file``, or nothing at all."""

    __slots__ = ("content", "file", "length")

    def __init__(self, content: bytes | None = None, file: IO[bytes] | None = None, length: int = 0) -> None:
        self.content = content
        self.file = file
        self.length = len(content) if content else length

    def chunks(self) -> Iterator[bytes]:
        """The file from its beginning."""
        assert self.file is not None
        self.file.seek(0)
        return iter(partial(self.file.read, CHUNK), b"")

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


NONE = Body()


class Spool:
    """Takes in a body of ``stated`` bytes, piece by piece; whoever gives up in between calls :meth:`discard`."""

    def __init__(self, stated: int) -> None:
        self._stated = stated
        self.received = 0
        self._held: list[bytes] = []
        self._file: IO[bytes] | None = None

    @property
    def missing(self) -> int:
        return self._stated - self.received

    def add(self, piece: bytes) -> None:
        self.received += len(piece)
        if self.missing < 0:
            raise Malformed("The body is longer than its stated length")
        self._held.append(piece)
        if self.received <= IN_MEMORY:
            return
        try:
            self._file = self._file or TemporaryFile()  # noqa: SIM115 - the Body closes it
            self._file.writelines(self._held)
        except OSError as error:
            raise Unavailable("There is no room for the body now") from error
        self._held.clear()

    def body(self) -> Body:
        """The body; 400 where it is cut short."""
        if self.missing:
            raise Malformed("The body ends before its stated length")
        if self._file is not None:
            return Body(file=self._file, length=self.received)
        return Body(b"".join(self._held))

    def discard(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


async def receive(protocol: Protocol, stated: int, patience: float = PATIENCE) -> Body:
    """The body, complete. Raises 408 where it does not come in time, 400 where it ends too early."""
    spool = Spool(stated)
    begun = time.monotonic()
    try:
        pieces = aiter(protocol)
        while spool.missing:
            async with asyncio.timeout(begun + patience + spool.received / SLOWEST - time.monotonic()):
                spool.add(bytes(await anext(pieces)))
        return spool.body()
    except BaseException as error:
        spool.discard()
        if isinstance(error, TimeoutError):
            raise ServiceError(408, "The body did not come in time") from error
        if isinstance(error, StopAsyncIteration | OSError):
            raise Malformed("The body ends before its stated length") from error
        raise


def expected_length(headers: Mapping[str, str], limit: int, too_large: str | None = None) -> int:
    """The length of the body. Raises 413 (with the code ``too_large``, where there is one of its own) where it is over
    ``limit``, 400 where it is not said clearly, 411 for chunks.

    The web server hands over a body in chunks that is malformed, or cut short, as if it were complete. A service
    would take the half for the whole, and nobody could tell.
    """
    length = headers.get("content-length")
    encoding = headers.get("transfer-encoding")
    if encoding is None:
        if length is None:
            return 0
        if not (length.isascii() and length.isdecimal()):
            raise Malformed("Content-Length is not a number")
        if len(length) > MOST_DIGITS or int(length) > limit:
            raise ServiceError(413, code=too_large)
        return int(length)
    if length is not None:
        raise Malformed("Content-Length and Transfer-Encoding exclude each other")
    if encoding.strip().lower() != "chunked":
        raise Malformed("Transfer-Encoding can only be chunked")
    raise ServiceError(411)
