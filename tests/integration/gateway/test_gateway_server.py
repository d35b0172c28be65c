"""The gateway as it really runs: the web server in a process of its own, spoken to over sockets."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from heartguard.audit import outcome_id
from heartguard.audit.event import decode
from heartguard.audit.stream import FIELD, STREAM
from heartguard.settings import ROOT

Fixture = Any

LAUNCH = """
import sys
from dataclasses import replace
from pathlib import Path

import heartguard.settings
from services.gateway.src import app, server, settings

read = heartguard.settings.load(settings.Settings)
server.run(app.create_front(replace(read, routes_file=Path({routes!r}))), "127.0.0.1", int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def module_service(kit: Fixture) -> Iterator[Fixture]:
    with kit.Service().running() as running:
        yield running


@pytest.fixture(scope="module")
def server(
    kit: Fixture, module_service: Fixture, valkey_url: str, routes_file: Path, free_port: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[int, Path]]:  # fmt: skip
    folder = tmp_path_factory.mktemp("server")
    (folder / "launch.py").write_text(LAUNCH.format(routes=str(routes_file)))
    port = free_port()
    environ = {
        **os.environ, "JWT_SECRET": kit.secret, "REDIS_URL": valkey_url, "RATE_LIMIT": "1000000/s",
        "AUTH_RATE_LIMIT": "1000000/s", "AUDIT_SPOOL": str(folder / "spool"),
        "AUTH_URL": module_service.url, "TIMESERIES_URL": module_service.url,
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "HTTP_PROXY": "http://127.0.0.1:9",
    }  # fmt: skip
    command = [sys.executable, str(folder / "launch.py"), str(port)]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environ, cwd=ROOT, stdout=out, stderr=out)
    try:
        wait_for(
            lambda: b" 200 " in speak(port, b"GET /gateway/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        )
        yield port, log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder)


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def speak(port: int, request: bytes, *, timeout: float = 5) -> bytes:
    """Send a request as it is; what came back until the other side closed, or fell silent."""
    received = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as connection:
            connection.sendall(request)
            while chunk := connection.recv(65_536):
                received += chunk
    except OSError:
        pass
    return received


def ask(port: int, method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway.test", "Connection: close", *headers]
    return speak(port, "\r\n".join([*lines, "", ""]).encode() + body)


def status(answer: bytes) -> int:
    found = re.match(rb"HTTP/1.1 (\d{3}) ", answer)
    assert found, answer
    return int(found[1])


def error(answer: bytes) -> dict[str, str]:
    document: dict[str, dict[str, str]] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return document["error"]


def test_it_proxies(server: tuple[int, Path], module_service: Fixture, kit: Fixture, redis: Redis) -> None:
    port, log = server
    module_service.seen.clear()
    bearer = f"Authorization: Bearer {kit.issue()}"
    answer = ask(
        port, "DELETE", "/auth/sessions/7%20x?a=%2F", bearer, "X-Request-ID: over-sockets", "X_Forwarded_For: 6.6.6.6"
    )
    assert status(answer) == 200
    assert b"x-request-id: over-sockets\r\n" in answer
    (seen,) = module_service.seen
    assert seen.target == "/auth/sessions/7%20x?a=%2F"
    assert seen.header("X-Forwarded-For") == "127.0.0.1"
    assert seen.header("Proxy") is None, "the process's HTTP_PROXY is no header"
    wait_for(lambda: log.read_bytes().count(b'"request_id":"over-sockets"') == 1)
    events = [decode(fields[FIELD]) for _, fields in redis.xrange(STREAM)]
    intent, outcome = (event for event in events if event.request_id == "over-sockets")
    assert (intent.outcome, outcome.outcome, outcome.event_id) == ("intent", "success", outcome_id(intent.event_id))
    assert intent.payload["route"] == "/auth/sessions/{id}"


@pytest.mark.parametrize("path", ["a%20b", "a%2520b", "%C3%A9", "a%3Fb%23c", "a;b=c,d"])
def test_a_path_arrives_as_it_was_sent(
    server: tuple[int, Path], module_service: Fixture, kit: Fixture, redis: Redis, path: str
) -> None:
    module_service.seen.clear()
    bearer = f"Authorization: Bearer {kit.issue()}"
    assert status(ask(server[0], "DELETE", f"/auth/sessions/{path}", bearer)) == 200
    assert [seen.target for seen in module_service.seen] == [f"/auth/sessions/{path}"]


@pytest.mark.parametrize("path", ["/auth/health", "/gateway/health"])
def test_a_query_arrives_as_it_was_sent_if_it_is_encoded(
    server: tuple[int, Path], module_service: Fixture, path: str
) -> None:
    module_service.seen.clear()
    assert status(ask(server[0], "GET", f"{path}?x=%E2%82%AC")) == 200
    assert [seen.target for seen in module_service.seen] in ([], ["/auth/health?x=%E2%82%AC"])
    refused = ask(server[0], "GET", f"{path}?x=\u20ac")
    assert status(refused) == 400
    assert "percent-encoded" in error(refused)["message"]


def test_head_keeps_the_length(server: tuple[int, Path], module_service: Fixture, kit: Fixture, redis: Redis) -> None:
    answer = ask(server[0], "HEAD", "/auth/profile", f"Authorization: Bearer {kit.issue()}")
    assert status(answer) == 200
    assert b"content-length: 2\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"GET /auth/health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /auth/health HTTP/1.1\r\n\r\n", 400),
        (b"GET /gateway/health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /gateway/nowhere HTTP/1.1\r\n\r\n", 400),
        (b'POST /auth/login HTTP/1.1\r\nHost: a\r\nIf-Match: "\xe9"\r\nContent-Length: 0\r\n\r\n', 400),
        (b"POST /auth/login HTTP/1.1\r\nHost: a\r\nConnection: If-None-Match\r\nIf-None-Match: *\r\n\r\n", 400),
        (b"GET /auth/%2e%2e/auth/health HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /auth//health HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"DELETE /auth/sessions/a%5cb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"DELETE /auth/sessions/a%0d%0ab HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"DELETE /auth/sessions/a%ff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"POST /auth/login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (b"DELETE /auth/sessions/a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"BREW /auth/login HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n", 413),
        (b"POST /auth/login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
         b"600\r\n" + b"x" * 0x600 + b"\r\n0\r\n\r\n", 413),
        (b"POST /auth/login HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /auth/health\r\n\r\n", 505),
        (b"GET /auth/health#a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://user@a/auth/health HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET ftp://a/auth/health HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"G(T /auth/health HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET /auth/health HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET /auth/health HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 100 + b"\r\n", 431),
    ],
)  # fmt: skip
def test_requests_that_are_refused(
    server: tuple[int, Path], module_service: Fixture, request_: bytes, code: int
) -> None:
    module_service.seen.clear()
    answer = speak(server[0], request_.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    assert status(answer) == code
    assert error(answer)["code"] == f"GATEWAY_{code}"
    assert module_service.seen == []


def test_two_lengths_never_make_two_requests(server: tuple[int, Path], module_service: Fixture) -> None:
    module_service.seen.clear()
    smuggled = b"GET /auth/ready HTTP/1.1\r\nHost: a\r\n\r\n"
    head = b"POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n"
    speak(server[0], head % (5 + len(smuggled)) + b"0\r\n\r\n" + smuggled, timeout=1)
    assert [seen.target for seen in module_service.seen] in ([], ["/auth/login"])
    assert all(seen.body == b"" for seen in module_service.seen)


def test_a_body_that_is_cut_short_reaches_no_service(server: tuple[int, Path], module_service: Fixture) -> None:
    module_service.seen.clear()
    with socket.create_connection(("127.0.0.1", server[0]), 5) as connection:
        connection.sendall(b"POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
        connection.shutdown(socket.SHUT_WR)
        assert status(connection.recv(65_536)) == 400
    assert module_service.seen == []


def test_a_slow_upload_holds_nobody_up(server: tuple[int, Path], module_service: Fixture, redis: Redis) -> None:
    with socket.create_connection(("127.0.0.1", server[0]), 5) as connection:
        connection.sendall(b"POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na")
        begun = time.monotonic()
        assert status(ask(server[0], "GET", "/auth/health")) == 200
        assert time.monotonic() - begun < 3
        connection.sendall(b"bc")
        assert status(connection.recv(65_536)) == 200


def test_a_long_answer_that_breaks_off_is_a_failure(server: tuple[int, Path], module_service: Fixture) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 200_000
        raise ConnectionAbortedError("the service dies here")

    usual = module_service.reply
    module_service.reply = lambda _environ, _body: ("200 OK", [("Content-Length", "1000000")], broken())
    try:
        assert status(ask(server[0], "GET", "/auth/health")) == 502
    finally:
        module_service.reply = usual


def test_many_at_once(server: tuple[int, Path], module_service: Fixture, kit: Fixture, redis: Redis) -> None:
    codes: list[int] = []

    def client() -> None:
        bearer = f"Authorization: Bearer {kit.issue()}"
        for _ in range(5):
            codes.append(status(ask(server[0], "GET", "/auth/profile", bearer)))  # noqa: PERF401 - as they come

    threads = [threading.Thread(target=client) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert codes == [200] * 80
