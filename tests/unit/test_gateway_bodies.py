import asyncio
import io

import pytest

from heartguard.errors import ServiceError
from services.gateway.src import bodies as module
from services.gateway.src.bodies import Body, expected_length, receive


class Sender:
    """A client's body as the web server hands it over: in pieces, the first after a while."""

    def __init__(self, content: bytes, piece: int = 65_536, after: float = 0) -> None:
        self._source = io.BytesIO(content)
        self._piece = piece
        self._after = after

    def __aiter__(self) -> "Sender":
        return self

    async def __anext__(self) -> bytes:
        await asyncio.sleep(self._after)
        if piece := self._source.read(self._piece):
            return piece
        raise StopAsyncIteration


def received(content: bytes, stated: int, patience: float = 5, **options: float) -> Body:
    return asyncio.run(receive(Sender(content, **options), stated, patience))


def status(content: bytes, stated: int, patience: float = 5, **options: float) -> int:
    with pytest.raises(ServiceError) as refused:
        received(content, stated, patience, **options)
    return refused.value.status


def test_a_body_in_pieces() -> None:
    body = received(b"abcdef", 6, piece=4)
    assert (body.content, body.length) == (b"abcdef", 6)
    body.close()


def test_a_long_body_goes_to_a_file_and_can_be_read_twice() -> None:
    content = bytes(range(256)) * 8192
    body = received(content, len(content))
    assert body.content is None
    assert body.length == len(content)
    assert b"".join(body.chunks()) == b"".join(body.chunks()) == content
    body.close()


def test_cut_short() -> None:
    assert status(b"abc", 4) == 400


def test_more_than_was_stated() -> None:
    assert status(b"abcd", 3) == 400


def test_one_that_does_not_come_in_time() -> None:
    assert status(b"abc", 3, patience=0.05, after=0.1) == 408


def test_one_that_comes_steadily_has_more_time() -> None:
    assert received(bytes(40_000), 40_000, 0.2, piece=8 * 1024, after=0.1).length == 40_000


def test_a_disk_that_is_full_is_a_passing_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TemporaryFile", lambda: open("/dev/full", "wb", buffering=0))  # noqa: SIM115, PTH123
    content = b"x" * (module.IN_MEMORY + 1)
    assert status(content, len(content)) == 503


def test_the_length_is_told_beforehand() -> None:
    assert expected_length({}, 10) == 0
    assert expected_length({"content-length": "0"}, 10) == 0
    assert expected_length({"content-length": "10"}, 10) == 10


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"content-length": "4"}, 413), ({"content-length": "9" * 6000}, 413), ({"transfer-encoding": "Chunked"}, 411),
     ({"content-length": ""}, 400), ({"content-length": "+4"}, 400), ({"content-length": "4, 4"}, 400),
     ({"content-length": "-1"}, 400), ({"content-length": "\u0664"}, 400),
     ({"content-length": "4", "transfer-encoding": "chunked"}, 400), ({"transfer-encoding": "gzip, chunked"}, 400)],
)  # fmt: skip
def test_a_length_that_is_too_much_or_not_clear_is_refused(headers: dict[str, str], status: int) -> None:
    with pytest.raises(ServiceError) as refused:
        expected_length(headers, 3)
    assert refused.value.status == status
