"""A request's body as it comes, for views that take in more than should be held in memory."""

import zlib
from collections.abc import Iterator
from typing import IO

from werkzeug.http import parse_options_header

from .errors import Malformed, ServiceError

CHUNK = 256 * 1024


class Incoming:
    """A body that can be read once. ``length`` is what ``Content-Length`` says, None for one in chunks."""

    def __init__(self, stream: IO[bytes], *, content_type: str | None, encoding: str, length: int | None) -> None:
        self._stream = stream
        self._encoding = encoding.strip().lower()
        self._length = length
        self.content_type = content_type
        self.media_type, self.options = parse_options_header(content_type)

    def chunks(self, limit: int) -> Iterator[bytes]:
        """The body in pieces, unpacked where it is gzip.

        Raises 413 as soon as it is known to be over ``limit`` bytes, 400 where it is cut short.
        """
        if self._encoding not in {"identity", "gzip", ""}:
            raise ServiceError(415, "Content-Encoding can be gzip or identity")
        if (self._length or 0) > limit:
            raise ServiceError(413)
        pieces = self._raw()
        total = 0
        for piece in _unpacked(pieces) if self._encoding == "gzip" else pieces:
            total += len(piece)
            if total > limit:
                raise ServiceError(413)
            yield piece

    def discard(self, limit: int) -> None:
        """Take what is left off the connection, up to ``limit`` bytes, so that an answer before the end arrives."""
        while limit > 0 and (piece := self._stream.read(CHUNK)):
            limit -= len(piece)

    def _raw(self) -> Iterator[bytes]:
        received = 0
        while piece := self._stream.read(CHUNK):
            received += len(piece)
            yield piece
        if received < (self._length or 0):  # the web server reports a broken connection as the body's end
            raise Malformed("The body is shorter than its Content-Length")


def _unpacked(packed: Iterator[bytes]) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        for piece in packed:
            while piece:
                yield unpacker.decompress(piece, CHUNK)
                piece = unpacker.unconsumed_tail
        yield unpacker.flush()
    except zlib.error:
        raise Malformed("The body is not gzip") from None
    if not unpacker.eof or unpacker.unused_data:
        raise Malformed("The gzip body is cut short or has something behind its end")
