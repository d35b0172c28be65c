"""What clients are told when something is wrong with them, with a service, or between the two."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from heartguard.services import SERVICES

Fixture = Any
FORMATS = [
    ({}, "application/json"),
    ({"Accept": "application/xml"}, "application/xml"),
    ({"Accept": "image/png"}, "application/json"),
]


def expect(kit: Fixture, response: Any, status: int, mimetype: str = "application/json") -> None:
    assert (response.status_code, response.mimetype) == (status, mimetype), response.data
    assert kit.error_of(response)["code"] == f"GATEWAY_{status}"
    assert response.headers["Vary"] == "Accept, Origin"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Gateway-Request-ID"]


@pytest.mark.parametrize(("headers", "mimetype"), FORMATS)
@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/auth//profile", {}, 400),
        ("GET", "/auth/%2e%2e/profile", {}, 400),
        ("GET", "/timeseries/buckets", {"headers": [("Host", "a"), ("Host", "b")]}, 400),
        ("GET", "/timeseries/buckets", {"headers": [("Host", "")]}, 400),
        ("GET", "/auth/profile", {}, 401),
        ("GET", "/auth/nowhere", {}, 404),
        ("GET", "/nowhere", {}, 404),
        ("PUT", "/auth/login", {}, 405),
        ("POST", "/gateway/health", {}, 405),
        ("POST", "/auth/login", {"data": b"x" * 1025}, 413),
    ],
)
def test_what_a_client_did_wrong(
    gateway: Fixture, service: Fixture, kit: Fixture, headers: dict[str, str], mimetype: str,
    method: str, path: str, options: dict[str, Any], status: int,
) -> None:  # fmt: skip
    more = options.get("headers", [])
    response = gateway(method, path, headers=[*headers.items(), *more], data=options.get("data"))
    expect(kit, response, status, mimetype)
    if status == 405:
        assert "OPTIONS" in response.headers["Allow"] or path.startswith("/gateway")
    assert service.seen == []


def test_a_refused_head_has_no_body(gateway: Fixture) -> None:
    response = gateway("HEAD", "/auth/profile")
    assert (response.status_code, response.data) == (401, b"")


@contextmanager
def answering(kit: Fixture, answer: bytes, *, stay: bool = False) -> Iterator[tuple[str, list[int]]]:
    """A server that sends ``answer`` to every request and hangs up, or stays silent; counts what it was asked."""
    asked: list[int] = []
    done = threading.Event()

    def handle(connection: socket.socket) -> None:
        while connection.recv(65_536):
            asked.append(1)
            connection.sendall(answer)
            if stay:
                done.wait(10)
            return

    with kit.raw_server(handle) as url:
        try:
            yield url, asked
        finally:
            done.set()


NONSENSE = {
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Ty",
    "a status that is none": b"HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a short body": b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc",
    "a short chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    "headers outside ASCII": b"HTTP/1.1 200 OK\r\nX-A: \xe9\r\nContent-Length: 0\r\n\r\n",
    "an empty 500": b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    "a page": b"HTTP/1.1 503 Busy\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\n<b>x\n",
    "JSON of another shape": b'HTTP/1.1 500 Oops\r\nContent-Type: application/json\r\n\r\n{"error":1}',
    "a huge error": b"HTTP/1.1 500 Oops\r\nContent-Type: application/json\r\n\r\n" + b"x" * 100_000,
}


@pytest.mark.parametrize("headers", [{}, {"Accept": "application/xml"}])
@pytest.mark.parametrize("name", NONSENSE)
def test_a_service_that_talks_nonsense(make: Fixture, kit: Fixture, name: str, headers: dict[str, str]) -> None:
    with answering(kit, NONSENSE[name]) as (url, _):
        response = make(AUTH_URL=url)("GET", "/auth/health", headers=headers)
    expect(kit, response, 502, headers.get("Accept", "application/json"))


def test_a_bare_refusal_is_put_into_shape(make: Fixture, kit: Fixture) -> None:
    with answering(kit, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") as (url, _):
        expect(kit, make(AUTH_URL=url)("GET", "/auth/health"), 400)


@pytest.mark.parametrize(
    ("mimetype", "report"),
    [
        ("application/json", b'{"status":"unavailable","checks":[]}'),
        ("application/xml", b"<?xml version='1.0' encoding='UTF-8'?><Ready><status>unavailable</status></Ready>"),
    ],
)
def test_a_service_that_is_not_ready_says_so_itself(make: Fixture, kit: Fixture, mimetype: str, report: bytes) -> None:
    head = f"HTTP/1.1 503 Away\r\nContent-Type: {mimetype}\r\nContent-Length: {len(report)}\r\n\r\n"
    with answering(kit, head.encode() + report) as (url, _):
        response = make(AUTH_URL=url)("GET", "/auth/ready", kit.issue(role="admin"))
    assert (response.status_code, response.mimetype, response.data) == (503, mimetype, report)


@pytest.mark.parametrize("headers", [{}, {"Accept": "application/xml"}])
def test_a_service_that_is_away(
    make: Fixture, kit: Fixture, free_port: Callable[[], int], headers: dict[str, str]
) -> None:
    gateway = make(AUTH_URL=f"http://127.0.0.1:{free_port()}")
    expect(kit, gateway("GET", "/auth/health", headers=headers), 502, headers.get("Accept", "application/json"))


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc"])
def test_a_service_that_is_slow(make: Fixture, kit: Fixture, answer: bytes) -> None:
    with answering(kit, answer, stay=True) as (url, asked):
        gateway = make(AUTH_URL=url, UPSTREAM_TIMEOUT_SECONDS="1")
        begun = time.monotonic()
        expect(kit, gateway("GET", "/auth/health", headers={"Accept": "text/xml"}), 504, "application/xml")
        assert time.monotonic() - begun < 5
    assert len(asked) == 1, "what timed out is not tried again"


@pytest.mark.parametrize(
    ("method", "path", "times"),
    [
        ("GET", "/auth/health", 2),
        ("PUT", "/auth/password", 1),
        ("DELETE", "/auth/sessions/1", 1),
        ("POST", "/auth/login", 1),
    ],
)
def test_what_a_service_may_have_done_is_not_tried_again(
    make: Fixture, kit: Fixture, method: str, path: str, times: int
) -> None:
    with answering(kit, b"") as (url, asked):
        assert make(AUTH_URL=url)(method, path, kit.issue(), data=b"{}").status_code == 502
    assert len(asked) == times


@pytest.mark.parametrize(
    ("begun", "method", "path", "times"),
    [
        (b"", "GET", "/auth/health", 3),
        (b"", "PUT", "/auth/password", 3),
        (b"", "DELETE", "/auth/sessions/1", 3),
        (b"", "POST", "/auth/login", 2),
        (b"HTTP/1.1 200 OK\r\nContent-", "GET", "/auth/health", 3),
        (b"HTTP/1.1 200 OK\r\nContent-", "PUT", "/auth/password", 2),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", "DELETE", "/auth/sessions/1", 2),
    ],
)
def test_a_connection_that_went_stale_is_replaced(
    make: Fixture, kit: Fixture, begun: bytes, method: str, path: str, times: int
) -> None:
    """Where not a byte of an answer has come, for all that is idempotent."""
    asked: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        while received := connection.recv(65_536):
            asked.append(received)
            if len(asked) == 2:
                connection.sendall(begun)
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with kit.raw_server(handle) as url:
        gateway = make(AUTH_URL=url)
        assert gateway("GET", "/auth/health").status_code == 200
        response = gateway(method, path, kit.issue(), data=b"the body")
    assert response.status_code == (200 if times == 3 else 502)
    assert [line.endswith(b"the body") for line in asked[1:]] == [method in {"PUT", "POST", "DELETE"}] * (times - 1)


def test_the_circuit_opens_and_closes_by_itself(make: Fixture, kit: Fixture, free_port: Callable[[], int]) -> None:
    port = free_port()
    gateway = make(AUTH_URL=f"http://127.0.0.1:{port}")
    codes = [gateway("POST", "/auth/login").status_code for _ in range(6)]
    assert codes == [502] * 5 + [503]
    response = gateway("POST", "/auth/login", headers={"Accept": "application/xml"})
    expect(kit, response, 503, "application/xml")
    assert int(response.headers["Retry-After"]) >= 1
    with kit.Service().running(port):
        begun = time.monotonic()
        while gateway("POST", "/auth/login").status_code != 200:
            assert time.monotonic() < begun + 5
            time.sleep(0.02)


def test_a_request_that_cannot_be_passed_on_opens_no_circuit(gateway: Fixture, kit: Fixture) -> None:
    for _ in range(7):
        expect(kit, gateway("GET", "/auth/health", headers={"X-Odd": "a\x01b"}), 400)
    assert gateway("GET", "/auth/health").status_code == 200


def test_one_service_that_is_away_leaves_the_others_alone(
    make: Fixture, service: Fixture, kit: Fixture, free_port: Callable[[], int]
) -> None:
    gateway = make(AUTH_URL=service.url, TIMESERIES_URL=f"http://127.0.0.1:{free_port()}")
    for _ in range(7):
        assert gateway("GET", "/timeseries/buckets", kit.issue()).status_code in {502, 503}
        assert gateway("GET", "/auth/profile", kit.issue()).status_code == 200


def test_the_gateways_own_mistakes_are_told_in_shape(
    gateway: Fixture, kit: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(gateway.front._proxy._guard, "admit", fail)
    response = gateway("GET", "/auth/health")
    expect(kit, response, 500)
    assert b"inside" not in response.data


@pytest.mark.parametrize(
    ("auth", "valkey", "status", "code"),
    [(True, True, "ready", 200), (True, False, "degraded", 200), (False, True, "unavailable", 503)],
)
def test_readiness(
    make: Fixture, service: Fixture, valkey_url: str, free_port: Callable[[], int],
    auth: bool, valkey: bool, status: str, code: int,
) -> None:  # fmt: skip
    url = service.url if auth else f"http://127.0.0.1:{free_port()}"
    redis_url = valkey_url if valkey else f"redis://127.0.0.1:{free_port()}"
    services = [service for service in SERVICES.values() if service.name != "gateway"]
    urls = {service.url_variable: url for service in services}
    gateway = make(**urls, REDIS_URL=redis_url)
    response = gateway("GET", "/gateway/ready")
    assert (response.status_code, response.json["status"]) == (code, status)
    assert {check["name"] for check in response.json["checks"]} == {"valkey", *(service.name for service in services)}
    asked = len(service.seen)
    assert gateway("GET", "/gateway/ready").json == response.json
    assert len(service.seen) == asked, "a look within a second asks nobody"


def test_a_service_that_says_it_is_ill_is_not_ready(make: Fixture, kit: Fixture) -> None:
    with answering(kit, b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n") as (url, _):
        response = make(AUTH_URL=url, TIMESERIES_URL=url)("GET", "/gateway/ready")
    assert response.json["status"] == "unavailable"
