"""Requests that two programs could read differently, sent over bare sockets to the gateway as it really runs.

Whatever it makes of one, the service behind it hears of it once and whole, or not at all, and never with
a header that the client made up about itself.
"""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

Fixture = Any

HOST = b"Host: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SMUGGLED = b"GET /auth/ready HTTP/1.1\r\nHost: a\r\nX-Smuggled: 1\r\n\r\n"
"""Must never arrive: it is the body of another request."""
POST = b"POST /auth/login HTTP/1.1\r\n" + HOST
GET = b"GET /auth/health HTTP/1.1\r\n" + HOST
LENGTH = b"Content-Length: %d\r\n" % len(SMUGGLED)


REFUSED = {
    "two lengths that differ": POST + b"Content-Length: 0\r\n" + LENGTH + b"\r\n" + SMUGGLED,
    "two lengths in one": POST + b"Content-Length: 0, %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    "a length with a sign": POST + b"Content-Length: +%d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n" + SMUGGLED,
    "a length in hexadecimal": POST + b"Content-Length: 0x10\r\n\r\n" + SMUGGLED,
    "a length without a number": POST + b"Content-Length: \r\n\r\n" + SMUGGLED,
    "a length too large for anyone": POST + b"Content-Length: 99999999999999999999\r\n\r\n" + SMUGGLED,
    "a coding that is not known": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + SMUGGLED,
    "a coding with a tab": POST + b"Transfer-Encoding:\tchunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two codings": POST + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a space before the colon": POST + b"Transfer-Encoding : chunked\r\n" + LENGTH + b"\r\n" + SMUGGLED,
    "a folded header": POST + b"Transfer-Encoding:\r\n chunked\r\n" + LENGTH + b"\r\n" + SMUGGLED,
    "a folded value": GET + b"X-A: b\r\n c\r\n\r\n",
    "two hosts": GET + b"Host: b\r\n\r\n",
    "two hosts and a third": b"GET http://c/auth/health HTTP/1.1\r\n" + HOST + b"Host: b\r\n\r\n",
    "no host": b"GET /auth/health HTTP/1.1\r\n\r\n",
    "a NUL in a header": GET + b"X-A: a\0b\r\n\r\n",
    "a bare CR in a header": GET + b"X-A: a\rX-Forwarded-For: 6.6.6.6\r\n\r\n",
    "a name with a space": GET + b"X A: b\r\n\r\n",
    "a header without a colon": GET + b"Whatever\r\n\r\n",
    "a header without a name": GET + b": b\r\n\r\n",
    "a huge header": GET + b"X-A: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "very many headers": GET + b"".join(b"X-%d: a\r\n" % n for n in range(5000)) + b"\r\n",
    "a chunk size that is none": POST + CHUNKED + b"\r\nzz\r\nabc\r\n0\r\n\r\n",
    "a chunk size too large": POST + CHUNKED + b"\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than it says": POST + CHUNKED + b"\r\n3\r\nabcdef\r\n0\r\n\r\n",
    "a chunk size with a sign": POST + CHUNKED + b"\r\n+3\r\nabc\r\n0\r\n\r\n",
    "a bare line feed after a chunk's size": POST + CHUNKED + b"\r\n3\nabc\r\n0\r\n\r\n",
    "a chunked body cut short": POST + CHUNKED + b"\r\n5\r\nab",
    "a body cut short": POST + b"Content-Length: 100\r\n\r\nabc",
    "a space in the target": b"GET /auth/health /x HTTP/1.1\r\n" + HOST + b"\r\n",
    "another version": b"GET /auth/health HTTP/3.7\r\n" + HOST + b"\r\n",
    "HTTP/2 without asking": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method that is none": b"G(T /auth/health HTTP/1.1\r\n" + HOST + b"\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}
"""By name; none of these may reach the service."""

HANDLED = {
    "chunks": POST + CHUNKED + b"\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
    "a chunk extension": POST + CHUNKED + b'\r\n3;a="b"\r\nabc\r\n0\r\n\r\n',
    "trailers": POST + CHUNKED + b"\r\n3\r\nabc\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\nX-User-Id: 1\r\n\r\n",
    "a length and chunks": POST + LENGTH + CHUNKED + b"\r\n0\r\n\r\n" + SMUGGLED,
    "chunks and a length": POST + CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "the same length twice": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "bare line feeds": GET.replace(b"\r\n", b"\n") + b"X-Forwarded-For: 6.6.6.6\n\n",
    "a body with a GET": GET + LENGTH + b"\r\n" + SMUGGLED,
    "capitals": GET + b"TRANSFER-ENCODING: identity\r\n\r\n",
    "an underscore": GET + b"Transfer_Encoding: chunked\r\nX_User_Id: 1\r\nX_Forwarded_For: 6.6.6.6\r\n\r\n",
    "an expectation": POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
    "an absolute target": b"GET http://elsewhere/auth/health HTTP/1.1\r\n" + HOST + b"\r\n",
    "an upgrade": GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    "a hop that takes headers away": GET + b"Connection: X-Request-ID, X-Forwarded-For, Host, close\r\n\r\n",
    "an old version": b"GET /auth/health HTTP/1.0\r\n" + HOST + b"\r\n",
}
"""By name; these are read in one way, or refused: the service hears of at most one request."""

SPOOFED = [
    b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-Host: evil", b"X-Forwarded-Proto: https", b"X-Forwarded-User: root",
    b"Forwarded: for=6.6.6.6", b"X-Real-IP: 6.6.6.6", b"X-User-Id: 1", b"X-User-Role: admin", b"X-Org-Id: 7",
    b"X-Gateway-Request-ID: mine", b"Remote-User: root", b"Via: 1.1 evil", b"X-Original-URL: /auth/ready",
    b"X-HTTP-Method-Override: DELETE", b"Proxy: http://evil", b"X_User_Id: 1", b"x-USER-id: 1",
]  # fmt: skip


@pytest.fixture(scope="module")
def service(kit: Fixture) -> Iterator[Fixture]:
    with kit.Service().running() as running:
        yield running


@pytest.fixture(scope="module")
def port(kit: Fixture, service: Fixture, valkey_url: str, free_port: Callable[[], int]) -> Iterator[int]:
    found = free_port()
    variables = {"AUTH_URL": service.url, "RATE_LIMIT": "1000000/s", "AUTH_RATE_LIMIT": "1000000/s"}
    with kit.gateway_process(found, REDIS_URL=valkey_url, **variables):
        yield found


def speak(port: int, request: bytes, *, hang_up: bool = False) -> bytes:
    """What comes back until the other side has closed, or has nothing more to say."""
    received = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
        with suppress(OSError):
            connection.sendall(request)
            if hang_up:
                connection.shutdown(socket.SHUT_WR)
        while chunk := connection.recv(65_536):
            received += chunk
            connection.settimeout(5 if b"Connection: close" in request else 0.3)
    return received


def statuses(answer: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_reaches_no_service(port: int, service: Fixture, name: str) -> None:
    service.seen.clear()
    answered = statuses(speak(port, REFUSED[name], hang_up="cut short" in name))
    assert all(400 <= status < 500 or status == 505 for status in answered[:1]), answered
    assert service.seen == []


@pytest.mark.parametrize("name", HANDLED)
def test_what_is_odd_arrives_once_and_whole_or_not_at_all(port: int, service: Fixture, name: str) -> None:
    service.seen.clear()
    answered = statuses(speak(port, HANDLED[name]))
    assert all(status < 500 for status in answered), answered
    assert len(service.seen) <= 1
    for seen in service.seen:
        assert seen.target in {"/auth/health", "/auth/login"}
        assert seen.body in {b"", b"abc"}
        assert seen.header("X-Forwarded-For") == "127.0.0.1"
        assert seen.header("X-Smuggled") is None
        assert seen.header("X-User-Id") is None
        assert seen.header("Transfer-Encoding") is None
        assert seen.header("Upgrade") is None


@pytest.mark.parametrize("header", SPOOFED)
def test_nobody_says_of_himself_who_he_is(port: int, service: Fixture, header: bytes) -> None:
    service.seen.clear()
    assert statuses(speak(port, GET + b"Connection: close\r\n" + header + b"\r\n\r\n")) == [200]
    (seen,) = service.seen
    value = header.partition(b": ")[2].decode()
    assert value not in {known for name, known in seen.headers if name.lower() != "content-length"}


def test_requests_one_after_the_other_without_waiting_are_each_answered(port: int, service: Fixture) -> None:
    service.seen.clear()
    post = POST + b"Content-Length: 3\r\n\r\nabc"
    assert statuses(speak(port, GET + b"\r\n" + post + GET + b"\r\n")) == [200, 200, 200]
    assert [seen.target for seen in service.seen] == ["/auth/health", "/auth/login", "/auth/health"]
    assert [seen.body for seen in service.seen] == [b"", b"abc", b""]


def test_no_client_passes_for_the_proxy_that_passed_it_on(
    kit: Fixture, valkey_url: str, free_port: Callable[[], int]
) -> None:
    """Metrics are for the proxy's network; a proxy appends to whatever the client says."""
    found = free_port()
    with kit.gateway_process(found, REDIS_URL=valkey_url, TRUSTED_PROXIES="127.0.0.1"):
        for said, expected in (
            (b"", 200),
            (b"X-Forwarded-For: 6.6.6.6\r\n", 401),
            (b"X-Forwarded-For: \xff, 6.6.6.6\r\n", 400),
        ):
            asked = b"GET /gateway/metrics HTTP/1.1\r\n" + HOST + said + b"\r\n"
            assert statuses(speak(found, asked)) == [expected]
