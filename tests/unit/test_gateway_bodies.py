import io
import threading
from collections.abc import Iterator

import pytest

from heartguard.errors import ServiceError
from services.gateway.src import bodies as module
from services.gateway.src.bodies import Bodies, stated_length


@pytest.fixture
def bodies() -> Iterator[Bodies]:
    made = Bodies(patience=0.2)
    yield made
    made.close()


def environ(content: bytes, **more: object) -> dict[str, object]:
    return {"wsgi.input": io.BytesIO(content), **more}


def status(bodies: Bodies, limit: int, given: dict[str, object]) -> int:
    with pytest.raises(ServiceError) as refused:
        bodies.receive(given, limit)
    return refused.value.status


def test_no_body_and_an_empty_one(bodies: Bodies) -> None:
    assert bodies.receive(environ(b"ignored"), 10).content is None
    assert bodies.receive(environ(b"", CONTENT_LENGTH="0"), 10).content == b""


def test_a_body_with_a_length(bodies: Bodies) -> None:
    body = bodies.receive(environ(b"abcdef", CONTENT_LENGTH="4"), 4)
    assert (body.content, body.length) == (b"abcd", 4)
    body.close()


def test_a_body_in_chunks_is_refused(bodies: Bodies) -> None:
    assert status(bodies, 6, environ(b"abcdef", HTTP_TRANSFER_ENCODING="Chunked")) == 411


def test_a_long_body_goes_to_a_file_and_can_be_read_twice(bodies: Bodies) -> None:
    content = bytes(range(256)) * 8192
    body = bodies.receive(environ(content, CONTENT_LENGTH=str(len(content))), len(content))
    assert body.content is None
    assert body.length == len(content)
    assert b"".join(body.chunks()) == b"".join(body.chunks()) == content
    body.close()


def test_too_long(bodies: Bodies) -> None:
    assert status(bodies, 3, environ(b"abcd", CONTENT_LENGTH="4")) == 413


def test_too_long_by_its_own_word_is_not_read(bodies: Bodies) -> None:
    source = io.BytesIO(b"abcd")
    assert status(bodies, 3, {"wsgi.input": source, "CONTENT_LENGTH": "4"}) == 413
    assert source.tell() == 0


def test_cut_short(bodies: Bodies) -> None:
    assert status(bodies, 100, environ(b"abc", CONTENT_LENGTH="4")) == 400


@pytest.mark.parametrize(
    "headers",
    [{"CONTENT_LENGTH": "+4"}, {"CONTENT_LENGTH": "4, 4"}, {"CONTENT_LENGTH": "-1"}, {"CONTENT_LENGTH": "\u0664"},
     {"CONTENT_LENGTH": "4", "HTTP_TRANSFER_ENCODING": "chunked"}, {"HTTP_TRANSFER_ENCODING": "gzip, chunked"}],
)  # fmt: skip
def test_an_unclear_length_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ServiceError) as refused:
        stated_length(headers)
    assert refused.value.status == 400


def test_a_body_that_does_not_come_is_not_waited_for(bodies: Bodies) -> None:
    release = threading.Event()

    class Stalled:
        def read(self, size: int) -> bytes:
            release.wait(10)
            return b""

    try:
        assert status(bodies, 100, {"wsgi.input": Stalled(), "CONTENT_LENGTH": "4"}) == 408
    finally:
        release.set()


def test_a_disk_that_is_full_is_a_passing_failure(bodies: Bodies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TemporaryFile", lambda: open("/dev/full", "wb", buffering=0))  # noqa: SIM115, PTH123
    content = b"x" * (module.IN_MEMORY + 1)
    assert status(bodies, len(content), environ(content, CONTENT_LENGTH=str(len(content)))) == 503
