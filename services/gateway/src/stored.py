"""Long answers whose length is not known before their end: taken in whole, then passed on with a length.

A client could not tell one of these that broke off from one that is complete. So it hears of it only once it is.
"""

from tempfile import TemporaryFile
from typing import IO

from heartguard.errors import ServiceError, Unavailable

from .answers import Answer
from .bodies import CHUNK
from .incoming import Nonsense
from .wire import Broken, TooSlow

LONGEST = 1024 * 1024 * 1024
"""Bytes of such an answer. It waits in a temporary file."""


async def stored(answer: Answer) -> Answer:
    """The same answer with a length. Raises 502 or 504 where it breaks off, 503 where there is no room for it."""
    assert answer.rest is not None
    file: IO[bytes] | None = None
    try:
        file = TemporaryFile()  # noqa: SIM115 - closed here, or by the answer's rest
        piece: bytes | None = answer.body
        while piece:
            file.write(piece)
            if file.tell() > LONGEST:
                raise ServiceError(502)
            piece = await answer.rest.read()
        length = file.tell()
        file.seek(0)
    except BaseException as error:
        answer.rest.close()
        if file is not None:
            file.close()
        raise _told(error) from error
    headers = [pair for pair in answer.headers if pair[0] != "transfer-encoding"]
    found = Answer(answer.status, [*headers, ("content-length", str(length))], file.read(CHUNK), _Stored(file))
    found.seconds = answer.seconds
    return found


def _told(error: BaseException) -> BaseException:
    """What the client hears of ``error``."""
    if isinstance(error, Broken | Nonsense):
        return ServiceError(502)
    if isinstance(error, TooSlow):
        return ServiceError(504)
    return Unavailable("There is no room for the answer now") if isinstance(error, OSError) else error


class _Stored:
    """The pieces of the answer, from its file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    async def read(self) -> bytes | None:
        return self._file.read(CHUNK) or None

    def close(self) -> None:
        self._file.close()
