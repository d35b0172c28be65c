"""How a long answer gets to its client: through a named pipe, which the web server reads like a file.

granian's own stream (``response_stream``) takes in whatever it is given, as if every client read as fast as a service
can write, and one that breaks off looks complete if it is in chunks. A file it reads only as fast as the client does;
where it ends before the stated length the connection ends, too; and once the client has gone nobody reads it.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

from heartguard.errors import Unavailable

from .rsgi import Headers, Protocol

OPEN_TIMEOUT = 5.0
"""Seconds until the web server must have opened the pipe; it has not where the client is gone already."""
SEND_TIMEOUT = 30.0
"""Seconds that a client may take to make room in the pipe."""
LOOK_AGAIN = 0.001


class Outlet:
    """A pipe for one answer. Whoever makes one calls :meth:`close`, which ends the answer."""

    def __init__(self) -> None:
        """Raises :class:`Unavailable` where none can be made."""
        try:
            self._folder: Path | None = Path(mkdtemp(prefix="heartguard-"))
            self._path = self._folder / "answer"
            os.mkfifo(self._path, 0o600)
        except OSError as error:
            raise Unavailable from error
        self._pipe: int | None = None

    async def begin(self, protocol: Protocol, status: int, headers: Headers) -> None:
        """Begin the answer; ``TimeoutError`` where the client does not wait for it any more."""
        protocol.response_file(status, headers, str(self._path))
        async with asyncio.timeout(OPEN_TIMEOUT):
            while (pipe := _opened(self._path)) is None:
                await asyncio.sleep(LOOK_AGAIN)
        self._pipe = pipe
        self._forget_name()

    async def send(self, piece: bytes) -> None:
        """Returns once the piece is in the pipe. ``OSError`` where the client has gone, or takes too long."""
        assert self._pipe is not None
        left = memoryview(piece)
        while left:
            try:
                left = left[os.write(self._pipe, left) :]
            except BlockingIOError:
                async with asyncio.timeout(SEND_TIMEOUT):
                    await _room(self._pipe)

    def close(self) -> None:
        self._forget_name()
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            os.close(pipe)

    def _forget_name(self) -> None:
        """Nobody else is to open it."""
        folder, self._folder = self._folder, None
        if folder is not None:
            with suppress(OSError):
                self._path.unlink()
                folder.rmdir()


def _opened(path: Path) -> int | None:
    """The pipe's end for writing; None while nobody has opened the other."""
    with suppress(OSError):
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return None


async def _room(pipe: int) -> None:
    loop = asyncio.get_running_loop()
    room = loop.create_future()
    wake: Callable[[], None] = lambda: None if room.done() else room.set_result(None)  # noqa: E731
    loop.add_writer(pipe, wake)
    try:
        await room
    finally:
        loop.remove_writer(pipe)
