"""Request bodies: whole, and within their limit, before a service hears of the request.

A body that is cut short or too long never reaches a service, and memory stays bounded: what is longer than
:data:`IN_MEMORY` goes to a temporary file, unless it is a batch of points, say, for which there is room.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from tempfile import TemporaryFile
from typing import IO

from heartguard.errors import Malformed, ServiceError, Unavailable

CHUNK = 64 * 1024
IN_MEMORY = 256 * 1024
"""Bytes of a body that are kept in memory."""
IN_ROOM = 1024 * 1024
"""The same while there is :class:`Room`: a file costs a fifth of all that the gateway does for a batch of points."""
ALL_ROOM = 32 * 1024 * 1024
"""Bytes of all bodies together that are kept in memory beyond what each may have in any case."""
PATIENCE = 10.0
"""Seconds that a body may take, and then one more for each :data:`SLOWEST` bytes that have come."""
SLOWEST = 8 * 1024
MOST_DIGITS = 18
"""Of a length; Python refuses to read thousands."""


class Room:
    """Memory that the bodies of one event loop share."""

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, size: int) -> bool:
        """Whether there is that much, which is then taken."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        self._left += size


ROOM = Room(ALL_ROOM)


class Body:
    """A request's body: ``content``, or else a ``file``, or nothing at all. Whoever has read it calls :meth:`close`."""

    __slots__ = ("_free", "content", "file", "length")

    def __init__(
        self,
        content: bytes | None = None,
        file: IO[bytes] | None = None,
        length: int = 0,
        free: Callable[[], None] | None = None,
    ) -> None:
        self.content = content
        self.file = file
        self.length = len(content) if content else length
        self._free = free

    def chunks(self) -> Iterator[bytes]:
        """The file from its beginning."""
        assert self.file is not None
        self.file.seek(0)
        return iter(partial(self.file.read, CHUNK), b"")

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
        if self._free is not None:
            self._free()


NONE = Body()


class Spool:
    """Takes in a body, piece by piece; whoever gives up in between calls :meth:`discard`."""

    def __init__(self, room: Room) -> None:
        self.received = 0
        self._room = room
        self._taken = 0
        """Bytes of the room."""
        self._held: list[bytes] = []
        self._file: IO[bytes] | None = None

    def add(self, piece: bytes) -> None:
        self.received += len(piece)
        self._held.append(piece)
        if self._file is None and self._is_small():
            return
        try:
            self._file = self._file or TemporaryFile()  # noqa: SIM115 - the Body closes it
            self._file.writelines(self._held)
        except OSError as error:
            raise Unavailable("There is no room for the body now") from error
        self._held.clear()
        self._leave_room()

    def _is_small(self) -> bool:
        """Whether all that has come can stay in memory."""
        needed = self.received - IN_MEMORY - self._taken
        if needed <= 0:
            return True
        if self.received > IN_ROOM or not self._room.take(needed):
            return False
        self._taken += needed
        return True

    def _leave_room(self) -> None:
        self._room.give_back(self._taken)
        self._taken = 0

    def body(self) -> Body:
        if self._file is not None:
            return Body(file=self._file, length=self.received)
        return Body(b"".join(self._held), free=self._leave_room if self._taken else None)

    def discard(self) -> None:
        self._leave_room()
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


async def receive(
    read: Callable[[], Awaitable[bytes]],
    limit: int,
    too_large: str | None = None,
    *,
    patience: float = PATIENCE,
    room: Room = ROOM,
) -> Body:
    """The body, complete; ``read`` gives its next piece, empty at the end.

    Raises 408 where it does not come in time, 400 where it breaks off, and 413 (with the code ``too_large``, where
    there is one of its own) as soon as it is over ``limit`` bytes.
    """
    spool = Spool(room)
    begun = time.monotonic()
    try:
        while True:
            async with asyncio.timeout(begun + patience + spool.received / SLOWEST - time.monotonic()):
                piece = await read()
            if not piece:
                return spool.body()
            spool.add(piece)
            if spool.received > limit:
                raise ServiceError(413, code=too_large)
    except BaseException as error:
        spool.discard()
        if isinstance(error, TimeoutError):
            raise ServiceError(408, "The body did not come in time") from error
        if isinstance(error, OSError):
            raise Malformed("The body breaks off") from error
        raise


def is_expected(headers: Mapping[str, str], limit: int, too_large: str | None = None) -> bool:
    """Whether there is a body. Raises 413 where it says that it is over ``limit`` bytes, 400 for other codings than
    chunks."""
    encoding = headers.get("transfer-encoding")
    if encoding is not None:
        if encoding.strip().lower() != "chunked":
            raise Malformed("Transfer-Encoding can only be chunked")
        return True
    length = headers.get("content-length", "0")
    if len(length) > MOST_DIGITS or int(length) > limit:
        raise ServiceError(413, code=too_large)
    return int(length) > 0
