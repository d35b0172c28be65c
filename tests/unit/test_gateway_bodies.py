import io

import pytest

from heartguard.errors import ServiceError
from services.gateway.src import bodies as module
from services.gateway.src.bodies import Body, Spool, expected_length, receive


def environ(content: bytes, **more: object) -> dict[str, object]:
    return {"wsgi.input": io.BytesIO(content), **more}


def received(given: dict[str, object], limit: int) -> Body:
    return receive(given, expected_length(given, limit))


def status(limit: int, given: dict[str, object]) -> int:
    with pytest.raises(ServiceError) as refused:
        received(given, limit)
    return refused.value.status


def test_no_body_and_an_empty_one() -> None:
    assert received(environ(b"ignored"), 10).content is None
    assert received(environ(b"", CONTENT_LENGTH="0"), 10).content == b""


def test_a_body_with_a_length() -> None:
    body = received(environ(b"abcdef", CONTENT_LENGTH="4"), 4)
    assert (body.content, body.length) == (b"abcd", 4)
    body.close()


def test_a_body_in_chunks_is_refused() -> None:
    assert status(6, environ(b"abcdef", HTTP_TRANSFER_ENCODING="Chunked")) == 411


def test_a_long_body_goes_to_a_file_and_can_be_read_twice() -> None:
    content = bytes(range(256)) * 8192
    body = received(environ(content, CONTENT_LENGTH=str(len(content))), len(content))
    assert body.content is None
    assert body.length == len(content)
    assert b"".join(body.chunks()) == b"".join(body.chunks()) == content
    body.close()


def test_too_long() -> None:
    assert status(3, environ(b"abcd", CONTENT_LENGTH="4")) == 413


def test_too_long_by_its_own_word_is_not_read() -> None:
    source = io.BytesIO(b"abcd")
    assert status(3, {"wsgi.input": source, "CONTENT_LENGTH": "4"}) == 413
    assert source.tell() == 0


def test_cut_short() -> None:
    assert status(100, environ(b"abc", CONTENT_LENGTH="4")) == 400


@pytest.mark.parametrize(
    "headers",
    [{"CONTENT_LENGTH": "+4"}, {"CONTENT_LENGTH": "4, 4"}, {"CONTENT_LENGTH": "-1"}, {"CONTENT_LENGTH": "\u0664"},
     {"CONTENT_LENGTH": "4", "HTTP_TRANSFER_ENCODING": "chunked"}, {"HTTP_TRANSFER_ENCODING": "gzip, chunked"}],
)  # fmt: skip
def test_an_unclear_length_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ServiceError) as refused:
        expected_length(headers, 10)
    assert refused.value.status == 400


def test_more_than_was_stated() -> None:
    spool = Spool(3)
    with pytest.raises(ServiceError, match="longer than its stated length"):
        spool.add(b"abcd")
    spool.discard()


def test_a_disk_that_is_full_is_a_passing_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TemporaryFile", lambda: open("/dev/full", "wb", buffering=0))  # noqa: SIM115, PTH123
    content = b"x" * (module.IN_MEMORY + 1)
    assert status(len(content), environ(content, CONTENT_LENGTH=str(len(content)))) == 503
