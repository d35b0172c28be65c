"""The client towards the services: what it makes of answers that are unusual, and of those that are a danger."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from services.gateway.src import wire
from services.gateway.src.answers import Answer
from services.gateway.src.bodies import NONE, Body
from services.gateway.src.incoming import MOST_FRAMING, Nonsense
from services.gateway.src.wire import Broken, Connection, TooSlow, Where

Fixture = Any
HEAD = b"GET / HTTP/1.1\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


LONG = 32 * 1024 * 1024
"""Bytes; more than the buffers between two programs hold."""

T = TypeVar("T")


class Client:
    """A connection on the event loop, used from the test's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, url: str, timeout: float) -> None:
        self._loop = loop
        self.connection = self.wait(Connection.connect(Where.parse(url), timeout))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def ask(self, method: str, body: Body = NONE) -> Answer:
        return self.wait(self.connection.ask(method, HEAD, body))

    def reusable(self) -> bool:
        """Whether another request may follow, which then has to be asked for."""
        if self.connection.reusable():
            self.connection.rest_until_asked()
            return True
        return False

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self.connection.close)


Connect = Callable[..., Client]


@pytest.fixture
def connect(loop: asyncio.AbstractEventLoop) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def client(url: str, timeout: float = 2) -> Client:
        made.append(Client(loop, url, timeout))
        return made[-1]

    yield client
    for one in made:
        one.close()


@contextmanager
def answering(kit: Fixture, answer: bytes) -> Iterator[str]:
    """A service that sends ``answer`` to whatever comes, and stays."""

    def handle(connection: socket.socket) -> None:
        while connection.recv(65_536):
            connection.sendall(answer)

    with kit.raw_server(handle) as url:
        yield url


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
def test_answers_of_every_kind(kit: Fixture, connect: Connect, answer: bytes, body: bytes, again: bool) -> None:
    with answering(kit, answer) as url:
        client = connect(url)
        found = client.ask("GET")
        assert (found.body, found.rest) == (body, None)
        assert all(name not in {"link", "x-trailer"} for name, _ in found.headers)
        assert client.reusable() is again
        if again:
            assert client.connection.fresh()
            assert client.ask("GET").body == body


def test_the_answer_to_a_head_has_no_body(kit: Fixture, connect: Connect) -> None:
    with answering(kit, b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n") as url:
        client = connect(url)
        assert client.ask("HEAD").body == b""
        assert not client.reusable()


def test_a_second_answer_that_nobody_asked_for_is_not_the_next_ones(kit: Fixture, connect: Connect) -> None:
    with answering(kit, OK + OK) as url:
        client = connect(url)
        assert client.ask("GET").body == b"ok"
        assert not client.reusable()


def test_what_comes_later_unasked_spoils_the_connection(kit: Fixture, connect: Connect) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(OK)
        time.sleep(0.1)
        connection.sendall(OK)
        connection.recv(65_536)

    with kit.raw_server(handle) as url:
        client = connect(url)
        assert client.ask("GET").body == b"ok"
        assert client.reusable()
        time.sleep(0.3)
        assert not client.connection.fresh()


def test_a_connection_that_is_idle_for_too_long_is_closed(
    kit: Fixture, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung_up = threading.Event()

    def handle(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(OK)
        with suppress(ConnectionResetError):
            assert connection.recv(65_536) == b""
        hung_up.set()

    monkeypatch.setattr(wire, "IDLE", 0.1)
    with kit.raw_server(handle) as url:
        client = connect(url, 0.3)
        assert client.ask("GET").body == b"ok"
        assert client.reusable()
        assert hung_up.wait(5)
        assert not client.connection.fresh()


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
def test_nonsense_is_called_so(kit: Fixture, connect: Connect, name: str) -> None:
    with answering(kit, NONSENSE[name]) as url, pytest.raises(Nonsense):
        connect(url).ask("GET")


def test_a_head_that_drips_runs_out_of_time(kit: Fixture, connect: Connect) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(65_536)
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 20:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    with kit.raw_server(handle) as url:
        client = connect(url, 0.5)
        begun = time.monotonic()
        with pytest.raises(TooSlow):
            client.ask("GET")
        assert time.monotonic() - begun < 3


def test_a_service_that_takes_no_body_runs_out_of_time(kit: Fixture, connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(bytes(LONG))
    with kit.raw_server(lambda _: time.sleep(3)) as url, (tmp_path / "long").open("rb") as file:
        client, body = connect(url, 0.5), Body(file=file, length=LONG)
        with pytest.raises(TooSlow):
            client.ask("PUT", body)


def test_a_service_that_hangs_up_in_a_long_body_has_broken_off(kit: Fixture, connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(bytes(LONG))
    with kit.raw_server(lambda connection: connection.recv(1000)) as url, (tmp_path / "long").open("rb") as file:
        client, body = connect(url), Body(file=file, length=LONG)
        with pytest.raises(Broken):
            client.ask("PUT", body)


def test_an_early_answer_to_a_long_body_is_heard(kit: Fixture, connect: Connect, tmp_path: Path) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass

    (tmp_path / "long").write_bytes(bytes(LONG))
    with kit.raw_server(handle) as url, (tmp_path / "long").open("rb") as file:
        client = connect(url)
        answer = client.ask("PUT", Body(file=file, length=LONG))
        assert (answer.status, answer.body) == (413, b"no")
        assert not client.reusable()


def test_a_long_answer_is_held_up_until_it_is_read(kit: Fixture, connect: Connect) -> None:
    sent: list[int] = []

    def handle(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONG)
        for _ in range(LONG // 65_536):
            connection.sendall(bytes(65_536))
            sent.append(65_536)
        connection.recv(65_536)

    with kit.raw_server(handle) as url:
        client = connect(url)
        answer = client.ask("GET")
        assert answer.rest is not None
        time.sleep(0.5)
        assert sum(sent) < LONG
        received = len(answer.body)
        while piece := client.wait(answer.rest.read()):
            received += len(piece)
        assert received == LONG
        assert client.reusable()


def test_an_answer_without_a_length_is_complete_only_if_the_connection_is_closed_and_not_reset(
    kit: Fixture, connect: Connect
) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(10)  # what is left unread makes the end a reset
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nok")
        time.sleep(0.2)

    with kit.raw_server(handle) as url:
        client = connect(url)
        with pytest.raises(Broken):
            client.ask("GET")


def test_nobody_is_there(connect: Connect, free_port: Callable[[], int]) -> None:
    with pytest.raises(Broken):
        connect(f"http://127.0.0.1:{free_port()}")


def test_an_address_that_speaks_no_tls(kit: Fixture, connect: Connect) -> None:
    with kit.raw_server(lambda connection: connection.sendall(OK)) as url, pytest.raises(Broken):
        connect(url.replace("http:", "https:"))
