"""Request bodies: received whole, within limits of size and time, before a service hears of the request.

A slow client so holds a thread of the gateway but none of a service, a body that is cut short or too
long never reaches one, and memory stays bounded: what is longer than :data:`IN_MEMORY` goes to a
temporary file. The web server's ``read`` has no time limit, so it is called on a thread of its own.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from functools import partial
from tempfile import TemporaryFile
from typing import IO, Protocol
from wsgiref.types import WSGIEnvironment

from heartguard.errors import Malformed, ServiceError, Unavailable

CHUNK = 64 * 1024
IN_MEMORY = 1024 * 1024
"""Bytes of a body that are kept in memory."""
READERS = 64
"""How many bodies can be waited for at once."""
PATIENCE = 10.0
"""Seconds that a body may take, and then one more for each :data:`SLOWEST` bytes that have come."""
SLOWEST = 8 * 1024


class Input(Protocol):
    def read(self, size: int, /) -> bytes: ...


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


class Bodies:
    """Receives request bodies. Thread-safe."""

    def __init__(self, *, patience: float = PATIENCE) -> None:
        self._readers = ThreadPoolExecutor(READERS, "body")
        self._patience = patience

    def close(self) -> None:
        self._readers.shutdown(wait=False, cancel_futures=True)

    def receive(self, environ: WSGIEnvironment, limit: int) -> Body:
        """The body. Raises 400 (cut short), 408 (too slow), 411 (in chunks) or 413 (over ``limit`` bytes)."""
        stated = stated_length(environ)
        if stated == 0:
            return Body(b"") if environ.get("CONTENT_LENGTH") else NONE
        if stated > limit:
            raise ServiceError(413)
        body = self._collect(environ["wsgi.input"], stated)
        if body.length != stated:
            body.close()
            raise Malformed("The body ends before its stated length")
        return body

    def _collect(self, source: Input, stated: int) -> Body:
        begun = time.monotonic()
        received = 0
        held: list[bytes] = []
        file: IO[bytes] | None = None
        try:
            while received < stated:
                deadline = begun + self._patience + received / SLOWEST
                chunk = self._read(source, min(CHUNK, stated - received), deadline)
                if not chunk:
                    break
                received += len(chunk)
                held.append(chunk)
                if received > IN_MEMORY:
                    file = file or TemporaryFile()  # noqa: SIM115 - the Body closes it
                    file.writelines(held)
                    held.clear()
        except OSError as error:
            _close(file)
            raise Unavailable("There is no room for the body now") from error
        except BaseException:
            _close(file)
            raise
        if file is not None:
            return Body(file=file, length=received)
        return Body(b"".join(held))

    def _read(self, source: Input, size: int, deadline: float) -> bytes:
        reading = self._readers.submit(source.read, size)
        try:
            return reading.result(max(0.0, deadline - time.monotonic()))
        except FutureTimeoutError:
            reading.cancel()
            raise ServiceError(408, "The body did not come in time") from None


def _close(file: IO[bytes] | None) -> None:
    if file is not None:
        with suppress(OSError):
            file.close()


def stated_length(environ: WSGIEnvironment) -> int:
    """The length of the body. Raises 400 where that is not said clearly, 411 for a body in chunks.

    The web server hands over a body in chunks that is malformed, or cut short, as if it were complete. A service
    would take the half for the whole, and nobody could tell.
    """
    length = environ.get("CONTENT_LENGTH") or None
    encoding = environ.get("HTTP_TRANSFER_ENCODING")
    if encoding is None:
        if length is None:
            return 0
        if not (length.isascii() and length.isdecimal()):
            raise Malformed("Content-Length is not a number")
        return int(length)
    if length is not None:
        raise Malformed("Content-Length and Transfer-Encoding exclude each other")
    if encoding.strip().lower() != "chunked":
        raise Malformed("Transfer-Encoding can only be chunked")
    raise ServiceError(411, "Send the body with a Content-Length, not in chunks")
