"""Long answers: taken in whole, as fast as their service gives them, before their client hears of them.

So a client that reads slowly holds up no thread of the service, and an answer that breaks off is a failure instead of
something that looks complete. They wait on disk; what is written there and read is waited for in threads.
"""

import asyncio
from contextlib import suppress
from tempfile import TemporaryFile

from heartguard.errors import ServiceError, Unavailable

from .answers import Answer
from .bodies import CHUNK

LONGEST = 1024 * 1024 * 1024
"""Bytes of one answer."""
TOO_LONG = (
    "The answer is longer than the gateway passes on (1 GiB): ask for less. The audit trail's export comes in parts:"
    " ?from_sequence=1&to_sequence=1000000, then ?from_sequence=1000001&to_sequence=2000000, and so on"
)
ROOM = 4 * LONGEST
"""Bytes of all that wait for one event loop."""


class Storage:
    """Where the long answers of one event loop wait."""

    def __init__(self, room: int = ROOM, longest: int = LONGEST) -> None:
        self._room = room
        self._longest = longest

    async def take_in(self, answer: Answer) -> "Stored":
        """All of a long answer. Raises 503 where there is no room for it, 502 where it is too long for any."""
        assert answer.rest is not None
        stored = Stored(self)
        try:
            piece: bytes | None = answer.body
            while piece:
                await stored.add(piece)
                if stored.length > self._longest:
                    raise ServiceError(502, TOO_LONG)
                piece = await answer.rest.read()
            await stored.rewind()
        except BaseException as error:
            stored.close()
            if isinstance(error, OSError):
                raise _no_room() from error
            raise
        return stored

    def claim(self, size: int) -> None:
        """Take that much room; a negative size gives it back. Raises :class:`Unavailable`."""
        if size > self._room:
            raise _no_room()
        self._room -= size


class Stored:
    """An answer's body, in a temporary file. Whoever holds one calls :meth:`close`."""

    def __init__(self, storage: Storage) -> None:
        """Raises :class:`Unavailable`."""
        self._storage = storage
        self.length = 0
        try:
            self._file = TemporaryFile()  # noqa: SIM115 - see close
        except OSError as error:
            raise _no_room() from error

    async def add(self, piece: bytes) -> None:
        self._storage.claim(len(piece))
        self.length += len(piece)
        await asyncio.to_thread(self._file.write, piece)

    async def rewind(self) -> None:
        await asyncio.to_thread(self._file.seek, 0)

    async def read(self) -> bytes:
        """The next piece, empty at the end."""
        return await asyncio.to_thread(self._file.read, CHUNK)

    def close(self) -> None:
        if not self._file.closed:
            self._storage.claim(-self.length)
            with suppress(OSError):  # what was not written yet need not be any more
                self._file.close()


def _no_room() -> Unavailable:
    return Unavailable("There is no room for the answer now")
