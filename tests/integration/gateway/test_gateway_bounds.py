"""A real gateway under large bodies, and while it is stopped or replaced: memory stays bounded, nothing is cut off."""

import http.client
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event
from typing import Any

from redis import Redis

Fixture = Any

CLOSED_BEFORE_READ = 0
AT_ONCE = 16
SIZE = 10 * 1024 * 1024
MOST_GROWTH = 64 * 1024 * 1024
"""Bytes. All the bodies in memory at once would be 320 MiB."""


def worker_of(pid: int) -> int:
    (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(worker)


def peak(pid: int) -> int:
    """The most memory that the process has had, in bytes, since :func:`forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def swallow_and_spout(connection: socket.socket) -> None:
    """A service that keeps nothing: takes a body of :data:`SIZE` bytes and answers with as many, in pieces."""
    piece = bytes(64 * 1024)
    while received := connection.recv(65_536):
        head, _, begun = received.partition(b"\r\n\r\n")
        assert f"content-length: {SIZE}".encode() in head.lower()
        left = SIZE - len(begun)
        while left:
            left -= len(connection.recv(min(65_536, left)))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % SIZE)
        for _ in range(SIZE // len(piece)):
            connection.sendall(piece)


def exchange(port: int, token: str) -> int:
    """Send a large body, take a large answer; the bytes that came."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Authorization": f"Bearer {token}", "Content-Length": str(SIZE), "Content-Type": "text/plain"}
    connection.request(
        "POST", "/timeseries/write", body=(bytes(65_536) for _ in range(SIZE // 65_536)), headers=headers
    )
    answer = connection.getresponse()
    assert answer.status == 200
    received = 0
    while piece := answer.read(65_536):
        received += len(piece)
    connection.close()
    return received


def test_large_bodies_both_ways_stay_out_of_memory(
    kit: Fixture, redis: Redis, valkey_url: str, free_port: Callable[[], int]
) -> None:
    port = free_port()
    with kit.raw_server(swallow_and_spout) as url, ExitStack() as stack:
        variables = {"REDIS_URL": valkey_url, "TIMESERIES_URL": url, "RATE_LIMIT": "1000000/s"}
        worker = worker_of(stack.enter_context(kit.gateway_process(port, **variables)).pid)
        assert exchange(port, kit.issue()) == SIZE
        forget_peak(worker)
        before = peak(worker)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            received = list(pool.map(lambda _: exchange(port, kit.issue()), range(AT_ONCE)))
        growth = peak(worker) - before
    print(f"memory before {before >> 20} MiB, growth {growth >> 20} MiB")
    assert received == [SIZE] * AT_ONCE
    assert growth < MOST_GROWTH


def test_an_answer_that_is_not_read_leaves_its_service_and_stays_out_of_memory(
    kit: Fixture, redis: Redis, valkey_url: str, free_port: Callable[[], int]
) -> None:
    port, size, sent, done = free_port(), 300 * 1024 * 1024, Counter[str](), Event()

    def spout(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        with suppress(OSError):
            while sent["bytes"] < size:
                connection.sendall(bytes(65_536))
                sent["bytes"] += 65_536
        done.set()

    with kit.raw_server(spout) as url, ExitStack() as stack:
        worker = worker_of(stack.enter_context(kit.gateway_process(port, REDIS_URL=valkey_url, AUTH_URL=url)).pid)
        before = peak(worker)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall(b"GET /auth/health HTTP/1.1\r\nHost: a\r\n\r\n")
            assert done.wait(30)
            assert client.recv(15) == b"HTTP/1.1 200 OK"
            assert peak(worker) - before < 32 * 1024 * 1024
    assert sent["bytes"] >= size


def ask(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        connection.request("GET", "/auth/health")
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def test_what_is_under_way_is_finished_when_it_is_told_to_stop(
    kit: Fixture, valkey_url: str, free_port: Callable[[], int]
) -> None:
    port, begun = free_port(), Event()

    def slow(environ: Any, body: bytes) -> Any:
        begun.set()
        time.sleep(1.5)
        return "200 OK", [("Content-Type", "application/json")], [b"{}"]

    with (
        kit.Service(reply=slow).running() as service,
        ThreadPoolExecutor(3) as pool,
        kit.gateway_process(port, REDIS_URL=valkey_url, AUTH_URL=service.url) as gateway,
    ):
        asked = [pool.submit(ask, port) for _ in range(3)]
        assert begun.wait(10)
        time.sleep(0.3)
        gateway.send_signal(signal.SIGTERM)
        assert [one.result() for one in asked] == [200] * 3
        assert gateway.wait(15) == 0


def test_a_successor_takes_over_and_nothing_is_dropped(
    kit: Fixture, service: Fixture, valkey_url: str, free_port: Callable[[], int]
) -> None:
    port, done = free_port(), Event()
    variables = {"REDIS_URL": valkey_url, "AUTH_URL": service.url, "RATE_LIMIT": "1000000/s"}

    def keep_asking() -> Counter[int]:
        seen = Counter[int]()
        while not done.is_set():
            try:
                seen[ask(port)] += 1
            except (http.client.RemoteDisconnected, ConnectionResetError):
                seen[CLOSED_BEFORE_READ] += 1  # connected in the very instant; asks again, as any client would
        return seen

    with kit.gateway_process(port, **variables) as first, ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(keep_asking) for _ in range(8)]
        try:
            with kit.gateway_process(port, "--join", **variables):
                first.send_signal(signal.SIGTERM)
                assert first.wait(15) == 0
                time.sleep(0.3)
                done.set()
                seen = sum((client.result() for client in clients), Counter[int]())
        finally:
            done.set()
    assert seen.pop(CLOSED_BEFORE_READ, 0) <= 8
    assert set(seen) == {200}
    assert seen[200] == len(service.seen), "what a service was asked, a client was answered"
