"""Clients that are slow, silent or many, against the gateway as it really runs: others do not notice them."""

import json
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

Fixture = Any

MANY = 200
"""More than there are threads, and more than the clients of a small clinic."""
LONG = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def port(kit: Fixture, service: Fixture, valkey_url: str, free_port: Callable[[], int]) -> Iterator[int]:
    found = free_port()
    variables = {"AUTH_URL": service.url, "RATE_LIMIT": "1000000/s", "AUTH_RATE_LIMIT": "1000000/s"}
    with kit.gateway_process(found, REDIS_URL=valkey_url, **variables):
        yield found


@pytest.fixture(scope="module")
def service(kit: Fixture) -> Iterator[Fixture]:
    with kit.Service().running() as running:
        yield running


@contextmanager
def connections(port: int, number: int, begin: bytes) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        made = []
        for _ in range(number):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(20)
            connection.connect(("127.0.0.1", port))
            connection.sendall(begin)
            made.append(connection)
        yield made


def answers(port: int, path: str) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return bool(answer.status == 200)


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"POST /auth/login HTTP/1.1\r\nHost: a\r\n",
        b"POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
        b"GET /gateway/health HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=["silent", "half a head", "half a body", "idle"],
)
def test_others_are_served_while_many_wait(port: int, begin: bytes) -> None:
    with connections(port, MANY, begin):
        time.sleep(0.5)
        assert answers(port, "/gateway/health")
        assert answers(port, "/auth/health")
    assert answers(port, "/gateway/health")


@pytest.mark.parametrize("name", [b"Accept: ", b"X-", b"Connection: ", b"Authorization: Bearer "])
def test_a_head_is_not_longer_than_it_needs_to_be(port: int, name: bytes) -> None:
    for length, told in ((16 * 1024, b"HTTP/1.1 200 "), (512 * 1024, b"HTTP/1.1 431 ")):
        head = b"GET /auth/health HTTP/1.1\r\nHost: a\r\n" + name + b"a" * length
        with connections(port, 1, head + b": a\r\n\r\n") as (connection,):
            assert connection.recv(65_536).startswith(told)


def test_a_body_that_does_not_come_is_given_up(port: int, service: Fixture) -> None:
    service.seen.clear()
    begin = b"POST /auth/login HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nContent-Length: 1000\r\n\r\n{"
    with connections(port, 1, begin) as (connection,):
        answer = connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "GATEWAY_408"
        assert answers(port, "/auth/health")
    assert [seen.target for seen in service.seen] == ["/auth/health"]


@pytest.mark.parametrize("with_length", [True, False])
def test_others_are_served_while_many_do_not_read(port: int, service: Fixture, with_length: bool) -> None:
    """Not even threads of the service are held up, of which it has four."""
    plain, threads = service.reply, threading.Semaphore(4)

    def pieces(number: int) -> Iterator[bytes]:
        with threads:
            for _ in range(number):
                yield b"x" * 65_536

    def long_answer(environ: dict[str, Any], _body: bytes) -> Fixture:
        size = LONG if environ["QUERY_STRING"] == "long" else 65_536
        headers = [("Content-Length", str(size))] if with_length else [("Connection", "close")]
        return "200 OK", headers, pieces(size // 65_536)

    service.reply = long_answer
    with connections(port, 40, b"GET /auth/health?long HTTP/1.1\r\nHost: a\r\n\r\n"):
        time.sleep(1)
        assert answers(port, "/gateway/health")
        assert answers(port, "/auth/health")
    service.reply = plain
