"""Bodies as they come: within their limit, whole, and unpacked."""

import gzip
import io
from collections.abc import Iterator

import pytest

from heartguard.errors import ServiceError
from heartguard.incoming import CHUNK, Incoming

CONTENT = bytes(range(256)) * 4000


def incoming(body: bytes, *, encoding: str = "identity", length: int | None = None) -> Incoming:
    return Incoming(io.BytesIO(body), content_type="text/csv; charset=utf-8", encoding=encoding, length=length)


def read(pieces: Iterator[bytes]) -> bytes:
    found = list(pieces)
    assert max(map(len, found), default=0) <= CHUNK
    return b"".join(found)


@pytest.mark.parametrize("length", [None, len(CONTENT)])
def test_a_body_comes_in_pieces(length: int | None) -> None:
    body = incoming(CONTENT, length=length)
    assert (body.media_type, body.options) == ("text/csv", {"charset": "utf-8"})
    assert read(body.chunks(len(CONTENT))) == CONTENT


@pytest.mark.parametrize("content", [b"", CONTENT, bytes(3_000_000)])
@pytest.mark.parametrize("encoding", ["gzip", " GZIP "])
def test_a_packed_body_is_unpacked(encoding: str, content: bytes) -> None:
    assert read(incoming(gzip.compress(content), encoding=encoding).chunks(3_000_000)) == content


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (incoming(CONTENT), 413),
        (incoming(b"", length=len(CONTENT)), 413),
        (incoming(gzip.compress(bytes(100_000_000)), encoding="gzip"), 413),
        (incoming(b"short", length=6), 400),
        (incoming(b"not packed", encoding="gzip"), 400),
        (incoming(gzip.compress(b"cut short")[:-4], encoding="gzip"), 400),
        (incoming(gzip.compress(b"more") + b"behind", encoding="gzip"), 400),
        (incoming(b"x", encoding="br"), 415),
    ],
)
def test_bodies_that_are_refused(body: Incoming, status: int) -> None:
    with pytest.raises(ServiceError) as refused:
        read(body.chunks(len(CONTENT) - 1))
    assert refused.value.status == status


def test_what_is_left_is_taken_off_the_connection() -> None:
    stream = io.BytesIO(CONTENT * 3)
    body = Incoming(stream, content_type=None, encoding="", length=None)
    next(body.chunks(10**9))
    body.discard(2 * CHUNK)
    assert stream.tell() == 3 * CHUNK
    body.discard(10**9)
    assert stream.read() == b""
