"""The client towards the services: what it makes of answers that are unusual, and of those that are a danger."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from services.gateway.src.bodies import NONE, Body
from services.gateway.src.wire import MOST_FRAMING, Broken, Connection, Nonsense, TooSlow, Where

Fixture = Any
HEAD = b"GET / HTTP/1.1\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def answering(kit: Fixture, answer: bytes, timeout: float = 2) -> Iterator[Connection]:
    """A connection to a service that sends ``answer`` to whatever comes, and stays."""

    def handle(connection: socket.socket) -> None:
        while connection.recv(65_536):
            connection.sendall(answer)

    with kit.raw_server(handle) as url:
        connection = Connection(Where.parse(url), timeout)
        try:
            yield connection
        finally:
            connection.close()


@pytest.mark.parametrize(
    ("answer", "body", "again"),
    [
        (OK, b"ok", True),
        (b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + OK, b"ok", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK, b"ok", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\n\r\n", b"", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
        (b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"1;a=b\r\no\r\n1\r\nk\r\n0\r\nX-Trailer: 1\r\n\r\n", b"ok", True),
    ],
)  # fmt: skip
def test_answers_of_every_kind(kit: Fixture, answer: bytes, body: bytes, again: bool) -> None:
    with answering(kit, answer) as connection:
        found = connection.ask("GET", HEAD, NONE)
        assert (found.body, found.rest) == (body, None)
        assert all(name not in {"link", "x-trailer"} for name, _ in found.headers)
        assert connection.reusable() is again
        if again:
            assert connection.fresh()
            assert connection.ask("GET", HEAD, NONE).body == body


def test_the_answer_to_a_head_has_no_body(kit: Fixture) -> None:
    with answering(kit, b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n") as connection:
        assert connection.ask("HEAD", HEAD, NONE).body == b""
        assert not connection.reusable()


def test_a_second_answer_that_nobody_asked_for_is_not_the_next_ones(kit: Fixture) -> None:
    with answering(kit, OK + OK) as connection:
        assert connection.ask("GET", HEAD, NONE).body == b"ok"
        assert not connection.reusable()


def test_what_comes_later_unasked_spoils_the_connection(kit: Fixture) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(OK)
        time.sleep(0.1)
        connection.sendall(OK)
        connection.recv(65_536)

    with kit.raw_server(handle) as url:
        connection = Connection(Where.parse(url), 2)
        assert connection.ask("GET", HEAD, NONE).body == b"ok"
        assert connection.reusable()
        time.sleep(0.3)
        assert not connection.fresh()
        connection.close()


NONSENSE = {
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * (MOST_FRAMING // 4),
    "a name without end": b"HTTP/1.1 200 OK\r\n" + b"a" * (3 * MOST_FRAMING),
    "chunk headers without end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * (3 * MOST_FRAMING),
    "a coding that is not known": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded header": b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length\r\n : 0\r\n\r\n",
    "a space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_called_so(kit: Fixture, name: str) -> None:
    with answering(kit, NONSENSE[name]) as connection, pytest.raises(Nonsense):
        connection.ask("GET", HEAD, NONE)


def test_a_head_that_drips_runs_out_of_time(kit: Fixture) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(65_536)
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 20:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    with kit.raw_server(handle) as url:
        connection = Connection(Where.parse(url), 0.5)
        begun = time.monotonic()
        with pytest.raises(TooSlow):
            connection.ask("GET", HEAD, NONE)
        assert time.monotonic() - begun < 3


def test_an_early_answer_to_a_long_body_is_heard(kit: Fixture, tmp_path: Any) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass

    (tmp_path / "long").write_bytes(bytes(300_000))
    with kit.raw_server(handle) as url, (tmp_path / "long").open("rb") as file:
        connection = Connection(Where.parse(url), 2)
        answer = connection.ask("PUT", HEAD, Body(file=file, length=300_000))
        assert (answer.status, answer.body) == (413, b"no")
        assert not connection.reusable()
        connection.close()


def test_nobody_is_there(free_port: Callable[[], int]) -> None:
    with pytest.raises(Broken):
        Connection(Where.parse(f"http://127.0.0.1:{free_port()}"), 1)


def test_an_address_that_speaks_no_tls(kit: Fixture) -> None:
    with kit.raw_server(lambda connection: connection.sendall(OK)) as url, pytest.raises(Broken):
        Connection(Where.parse(url.replace("http:", "https:")), 1)
