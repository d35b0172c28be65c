"""Long bodies, both ways."""

import asyncio
import hashlib
import socket
from typing import Any

import pytest

from heartguard.errors import ServiceError
from services.gateway.src import stored
from services.gateway.src.answers import Answer

Fixture = Any

LONG = 3 * 1024 * 1024


def test_a_long_request_body_arrives_whole(gateway: Fixture, service: Fixture, kit: Fixture) -> None:
    content = bytes(range(256)) * (LONG // 256)
    response = gateway("POST", "/timeseries/write", kit.issue(), data=content, headers={"Content-Type": "text/plain"})
    assert response.status_code == 200
    (seen,) = service.seen
    assert hashlib.sha256(seen.body).digest() == hashlib.sha256(content).digest()
    assert seen.header("Content-Length") == str(len(content))


def test_a_body_in_chunks_arrives_whole_and_with_its_length(gateway: Fixture, service: Fixture, kit: Fixture) -> None:
    headers = [("Transfer-Encoding", "chunked"), ("Content-Type", "text/plain")]
    content = bytes(range(256)) * (LONG // 256)
    assert gateway("POST", "/timeseries/write", kit.issue(), data=content, headers=headers).status_code == 200
    (seen,) = service.seen
    assert seen.body == content
    assert (seen.header("Content-Length"), seen.header("Transfer-Encoding")) == (str(LONG), None)


def test_a_body_in_chunks_has_its_limit_too(gateway: Fixture, service: Fixture, kit: Fixture) -> None:
    headers = [("Transfer-Encoding", "chunked"), ("Content-Type", "application/json")]
    assert gateway("POST", "/auth/login", headers=headers, data=bytes(1024)).status_code == 200
    refused = gateway("POST", "/auth/login", headers=headers, data=bytes(1025))
    assert kit.error_of(refused)["code"] == "GATEWAY_413"
    assert len(service.seen) == 1


@pytest.mark.parametrize("with_length", [True, False])
def test_a_long_answer_arrives_whole(gateway: Fixture, service: Fixture, kit: Fixture, with_length: bool) -> None:
    piece = bytes(range(256)) * 256
    count = LONG // len(piece)
    headers = [("Content-Type", "text/plain"), ("ETag", '"1"')]
    headers += [("Content-Length", str(LONG))] if with_length else [("Connection", "close")]
    service.reply = lambda _environ, _body: ("200 OK", headers, (piece for _ in range(count)))
    response = gateway("GET", "/auth/profile", kit.issue())
    assert (response.status_code, response.headers["ETag"]) == (200, '"1"')
    assert response.headers.get("Content-Length") == str(LONG)
    assert response.data == piece * count


def test_a_short_answer_of_unknown_length_gets_one(gateway: Fixture, service: Fixture, kit: Fixture) -> None:
    service.reply = lambda _environ, _body: ("200 OK", [("Connection", "close")], (b"x" for _ in range(3)))
    assert gateway("GET", "/auth/profile", kit.issue()).data == b"xxx"


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked", b"Content-Length: 1000000"])
@pytest.mark.parametrize(("stays", "status"), [(False, 502), (True, 504)])
def test_one_that_breaks_off_is_a_failure(
    make: Fixture, kit: Fixture, framing: bytes, stays: bool, status: int
) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(65_536)
        head = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n"
        connection.sendall(head + b"10000\r\n" + b"x" * 65_536 + b"\r\n10000\r\n" + b"x" * 65_536 + b"\r\n")
        if stays:
            connection.recv(65_536)

    with kit.raw_server(handle) as url:
        response = make(AUTH_URL=url, UPSTREAM_TIMEOUT_SECONDS="1")("GET", "/auth/health")
    assert response.status_code == status
    assert kit.error_of(response)["code"] == f"GATEWAY_{status}"


@pytest.mark.parametrize("with_length", [True, False])
def test_where_there_is_no_room_for_a_long_answer_it_is_a_passing_failure(
    gateway: Fixture, service: Fixture, kit: Fixture, monkeypatch: pytest.MonkeyPatch, with_length: bool
) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored, "TemporaryFile", full)
    headers = [("Content-Length", str(LONG))] if with_length else [("Connection", "close")]
    service.reply = lambda _environ, _body: ("200 OK", headers, (bytes(65_536) for _ in range(LONG // 65_536)))
    response = gateway("GET", "/auth/profile", kit.issue())
    assert response.status_code == 503
    assert kit.error_of(response)["code"] == "GATEWAY_503"


class Pieces:
    """The rest of an answer of three pieces."""

    def __init__(self) -> None:
        self._left = 2

    async def read(self) -> bytes | None:
        self._left -= 1
        return b"rest" if self._left >= 0 else None


def test_what_is_stored_is_bounded_and_room_is_given_back() -> None:
    async def work() -> None:
        storage = stored.Storage(room=20, longest=12)
        one = await storage.take_in(Answer(200, [], b"four", Pieces()))
        assert (one.length, await one.read(), await one.read()) == (12, b"fourrestrest", b"")
        with pytest.raises(ServiceError) as refused:
            await storage.take_in(Answer(200, [], b"four", Pieces()))
        assert refused.value.status == 503
        one.close()
        one.close()
        with pytest.raises(ServiceError) as refused:
            await storage.take_in(Answer(200, [], b"longer", Pieces()))
        assert (refused.value.status, refused.value.message) == (502, stored.TOO_LONG)
        assert "?from_sequence=1&to_sequence=1000000" in stored.TOO_LONG
        storage.claim(20)

    asyncio.run(work())
