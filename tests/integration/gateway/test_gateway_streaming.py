"""Long bodies, both ways, and clients that go away."""

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from services.gateway.src import outlet, stored

Fixture = Any

LONG = 3 * 1024 * 1024


def test_a_long_request_body_arrives_whole(gateway: Fixture, service: Fixture, kit: Fixture) -> None:
    content = bytes(range(256)) * (LONG // 256)
    response = gateway("POST", "/timeseries/write", kit.issue(), data=content, headers={"Content-Type": "text/plain"})
    assert response.status_code == 200
    (seen,) = service.seen
    assert hashlib.sha256(seen.body).digest() == hashlib.sha256(content).digest()
    assert seen.header("Content-Length") == str(len(content))


def test_a_body_in_chunks_is_refused(gateway: Fixture, service: Fixture, kit: Fixture) -> None:
    chunked = {"Transfer-Encoding": "chunked", "Content-Type": "text/plain"}
    assert gateway("POST", "/timeseries/write", kit.issue(), headers=chunked).status == "411 Length Required"
    assert service.seen == []


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


def test_an_answer_that_breaks_off_is_not_made_to_look_complete(make: Fixture, kit: Fixture) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 200_000)

    with kit.raw_server(handle) as url:
        response = make(AUTH_URL=url)("GET", "/auth/health")
    assert (response.status_code, response.headers["Content-Length"]) == (200, "1000000")
    assert len(response.data) <= 200_000


@pytest.mark.parametrize(("stays", "status"), [(False, 502), (True, 504)])
def test_one_in_chunks_that_breaks_off_is_a_failure(make: Fixture, kit: Fixture, stays: bool, status: int) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(65_536)
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"10000\r\n" + b"x" * 65_536 + b"\r\n10000\r\n" + b"x" * 65_536 + b"\r\n")
        if stays:
            connection.recv(65_536)

    with kit.raw_server(handle) as url:
        response = make(AUTH_URL=url, UPSTREAM_TIMEOUT_SECONDS="1")("GET", "/auth/health")
    assert response.status_code == status
    assert kit.error_of(response)["code"] == f"GATEWAY_{status}"


@pytest.mark.parametrize("what", ["TemporaryFile", "mkdtemp"])
@pytest.mark.parametrize("with_length", [True, False])
def test_where_there_is_no_room_for_a_long_answer_it_is_a_passing_failure(
    gateway: Fixture, service: Fixture, kit: Fixture, monkeypatch: pytest.MonkeyPatch, what: str, with_length: bool
) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored if what == "TemporaryFile" else outlet, what, full)
    headers = [("Content-Length", str(LONG))] if with_length else [("Connection", "close")]
    service.reply = lambda _environ, _body: ("200 OK", headers, (bytes(65_536) for _ in range(LONG // 65_536)))
    response = gateway("GET", "/auth/profile", kit.issue())
    if what == "TemporaryFile" and with_length:
        assert (response.status_code, len(response.data)) == (200, LONG)
    else:
        assert response.status_code == 503
        assert kit.error_of(response)["code"] == "GATEWAY_503"


@contextmanager
def begun(kit: Fixture, port: int, valkey_url: str, handle: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """A client of a gateway in a process of its own, which has asked for what ``handle`` answers."""
    with (
        kit.raw_server(handle) as url,
        kit.gateway_process(port, REDIS_URL=valkey_url, AUTH_URL=url),
        socket.create_connection(("127.0.0.1", port), 10) as client,
    ):
        client.sendall(b"GET /auth/health HTTP/1.1\r\nHost: a\r\n\r\n")
        yield client


def test_an_answer_is_passed_on_before_it_is_complete(
    kit: Fixture, valkey_url: str, free_port: Callable[[], int]
) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 200_000)
        connection.recv(65_536)

    with begun(kit, free_port(), valkey_url, handle) as client:
        received = b""
        while len(received) < 200_000:
            received += client.recv(65_536)
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_client_that_goes_away_lets_go_of_the_service(
    kit: Fixture, valkey_url: str, free_port: Callable[[], int]
) -> None:
    hung_up = threading.Event()

    def handle(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
        with suppress(OSError):
            while True:
                connection.sendall(b"x" * 65_536)
                time.sleep(0.05)
        hung_up.set()

    with begun(kit, free_port(), valkey_url, handle) as client:
        assert client.recv(65_536)
        assert not hung_up.is_set()
        client.close()
        assert hung_up.wait(3)
