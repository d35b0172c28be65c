"""Long bodies, both ways, and clients that go away."""

import hashlib
import socket
import time
from contextlib import suppress
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder, run_wsgi_app

Fixture = Any

LONG = 3 * 1024 * 1024


def test_a_long_request_body_arrives_whole(gateway: Fixture, service: Fixture, kit: Fixture) -> None:
    content = bytes(range(256)) * (LONG // 256)
    response = gateway("POST", "/timeseries/write", kit.issue(), data=content, content_type="text/plain")
    assert response.status_code == 200
    (seen,) = service.seen
    assert hashlib.sha256(seen.body).digest() == hashlib.sha256(content).digest()
    assert seen.header("Content-Length") == str(len(content))


def test_a_body_in_chunks_is_refused(gateway: Fixture, service: Fixture, kit: Fixture) -> None:
    builder = EnvironBuilder(path="/timeseries/write", method="POST", data=b"abc", content_type="text/plain")
    environ = builder.get_environ()
    del environ["CONTENT_LENGTH"]
    environ |= {"HTTP_TRANSFER_ENCODING": "chunked", "HTTP_AUTHORIZATION": f"Bearer {kit.issue()}"}
    assert run_wsgi_app(gateway.app, environ)[1] == "411 Length Required"
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
    assert response.headers.get("Content-Length") == (str(LONG) if with_length else None)
    assert response.data == piece * count


def test_a_short_answer_of_unknown_length_gets_one(gateway: Fixture, service: Fixture, kit: Fixture) -> None:
    service.reply = lambda _environ, _body: ("200 OK", [("Connection", "close")], (b"x" for _ in range(3)))
    assert gateway("GET", "/auth/profile", kit.issue()).data == b"xxx"


def test_an_answer_is_passed_on_before_it_is_complete(make: Fixture, kit: Fixture) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 200_000)
        connection.recv(65_536)

    with kit.raw_server(handle) as url:
        gateway = make(AUTH_URL=url)
        response = gateway("GET", "/auth/health", buffered=False)
        chunks = response.iter_encoded()
        assert next(chunks)
        response.close()


def test_an_answer_that_breaks_off_is_not_made_to_look_complete(make: Fixture, kit: Fixture) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 200_000)

    with kit.raw_server(handle) as url:
        response = make(AUTH_URL=url)("GET", "/auth/health", buffered=False)
        with pytest.raises(Exception, match="ended before"):
            for _ in response.iter_encoded():
                pass
        response.close()


def test_a_client_that_goes_away_lets_go_of_the_service(make: Fixture, kit: Fixture) -> None:
    hung_up: list[float] = []

    def handle(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 200_000)
        with suppress(ConnectionResetError):
            while connection.recv(65_536):
                pass
        hung_up.append(time.monotonic())

    with kit.raw_server(handle) as url:
        response = make(AUTH_URL=url)("GET", "/auth/health", buffered=False)
        assert next(iter(response.iter_encoded()))
        assert not hung_up
        response.close()
        response.close()
        end = time.monotonic() + 5
        while not hung_up and time.monotonic() < end:
            time.sleep(0.02)
    assert hung_up
