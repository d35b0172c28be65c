import asyncio
import io

import pytest

from heartguard.errors import ServiceError
from services.gateway.src import bodies as module
from services.gateway.src.bodies import IN_MEMORY, IN_ROOM, Body, Room, is_expected, receive


class Sender:
    """A client's body as it comes: in pieces, each after a while."""

    def __init__(self, content: bytes, piece: int = 65_536, after: float = 0) -> None:
        self._source = io.BytesIO(content)
        self._piece = piece
        self._after = after

    async def read(self) -> bytes:
        await asyncio.sleep(self._after)
        return self._source.read(self._piece)


def received(content: bytes, limit: int = 10_000_000, patience: float = 5, **options: float) -> Body:
    return asyncio.run(receive(Sender(content, **options).read, limit, patience=patience))


def status(content: bytes, limit: int = 10_000_000, patience: float = 5, **options: float) -> int:
    with pytest.raises(ServiceError) as refused:
        received(content, limit, patience, **options)
    return refused.value.status


def test_a_body_in_pieces() -> None:
    body = received(b"abcdef", piece=4)
    assert (body.content, body.length) == (b"abcdef", 6)
    body.close()


def test_a_long_body_goes_to_a_file_and_can_be_read_twice() -> None:
    content = bytes(range(256)) * 8192
    body = received(content)
    assert body.content is None
    assert body.length == len(content)
    assert b"".join(body.chunks()) == b"".join(body.chunks()) == content
    body.close()


def in_room(content: bytes, room: Room, limit: int = 10_000_000) -> Body:
    return asyncio.run(receive(Sender(content).read, limit, room=room))


def test_a_longer_one_stays_in_memory_while_there_is_room() -> None:
    content, room = b"x" * (IN_MEMORY + 1000), Room(1500)
    first = in_room(content, room)
    second = in_room(content, room)
    assert first.content == content
    assert second.content is None
    assert b"".join(second.chunks()) == content
    second.close()
    first.close()
    assert room.take(1500)


def test_one_that_has_room_no_more_takes_none() -> None:
    room = Room(IN_ROOM)
    body = in_room(b"x" * (IN_ROOM + 1), room)
    assert body.content is None
    assert room.take(IN_ROOM)
    body.close()


def test_one_that_is_refused_takes_no_room() -> None:
    room = Room(1000)
    with pytest.raises(ServiceError):
        in_room(b"x" * (IN_MEMORY + 1000), room, limit=IN_MEMORY + 500)
    assert room.take(1000)


def test_one_that_breaks_off() -> None:
    async def read() -> bytes:
        raise ConnectionResetError

    with pytest.raises(ServiceError) as refused:
        asyncio.run(receive(read, 10))
    assert refused.value.status == 400


def test_more_than_is_allowed() -> None:
    assert status(b"abcd", 3) == 413


def test_one_that_does_not_come_in_time() -> None:
    assert status(b"abc", patience=0.05, after=0.1) == 408


def test_one_that_comes_steadily_has_more_time() -> None:
    assert received(bytes(40_000), patience=0.2, piece=8 * 1024, after=0.1).length == 40_000


def test_a_disk_that_is_full_is_a_passing_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TemporaryFile", lambda: open("/dev/full", "wb", buffering=0))  # noqa: SIM115, PTH123
    assert status(b"x" * (IN_ROOM + 1)) == 503


def test_whether_there_is_one_is_told_beforehand() -> None:
    assert not is_expected({}, 10)
    assert not is_expected({"content-length": "0"}, 10)
    assert is_expected({"content-length": "10"}, 10)
    assert is_expected({"transfer-encoding": "Chunked"}, 10)


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"content-length": "4"}, 413), ({"content-length": "9" * 6000}, 413), ({"transfer-encoding": "gzip"}, 400),
     ({"transfer-encoding": "gzip, chunked"}, 400), ({"transfer-encoding": "chunked, chunked"}, 400)],
)  # fmt: skip
def test_one_that_is_too_long_or_in_no_known_coding_is_refused(headers: dict[str, str], status: int) -> None:
    with pytest.raises(ServiceError) as refused:
        is_expected(headers, 3)
    assert refused.value.status == status
