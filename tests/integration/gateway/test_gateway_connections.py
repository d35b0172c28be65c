"""Clients' connections, over real sockets on a loop of their own: order, time limits, bounds, and the end of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from services.gateway.src import client as module
from services.gateway.src.client import Clients
from services.gateway.src.request import Request

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: a\r\n"


def run(work: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await work

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(limited())


async def echo(request: Request) -> None:
    """Answers with what it was asked and sent; what cannot be read, with its status."""
    if request.problem is not None:
        request.answer(request.problem.status, [], b"")
        return
    body = b""
    try:
        while piece := await request.read():
            body += piece
    except ConnectionError:
        request.answer(400, [], b"cut short")
    else:
        request.answer(200, [], f"{request.method} {request.path} {len(body)} ".encode() + body[:100])


@asynccontextmanager
async def serving(
    answering: Callable[[Request], Coroutine[Any, Any, None]] = echo, most: int = 100
) -> AsyncIterator[tuple[Connect, Clients]]:
    clients = Clients(answering, most)
    server = await asyncio.get_running_loop().create_server(clients, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    opened: list[asyncio.StreamWriter] = []

    async def connect() -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        opened.append(writer)
        return reader, writer

    try:
        yield connect, clients
    finally:
        for writer in opened:
            writer.close()
        server.close()
        await clients.finish(1)


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(first.split(" ")[1]), headers, await reader.readexactly(int(headers.get("content-length", "0")))


def test_requests_follow_one_another_on_a_connection() -> None:
    async def work() -> None:
        async with serving() as (connect, _):
            reader, writer = await connect()
            for number in range(3):
                writer.write(POST + b"Content-Length: 2\r\n\r\n%02d" % number)
                status, headers, body = await answer(reader)
                assert (status, body) == (200, b"POST /a 2 %02d" % number)
                assert "connection" not in headers
                assert headers["date"].endswith(" GMT")
                assert "server" not in headers

    run(work())


def test_those_that_come_together_are_answered_one_at_a_time_and_in_order() -> None:
    running: list[int] = []

    async def slow(request: Request) -> None:
        running.append(len(running))
        assert len(running) == 1
        await asyncio.sleep(0.01)
        running.clear()
        await echo(request)

    async def work() -> None:
        async with serving(slow) as (connect, _):
            reader, writer = await connect()
            writer.write(b"".join(GET.replace(b"/a", b"/%d" % number) for number in range(20)))
            assert [(await answer(reader))[2] for _ in range(20)] == [b"GET /%d 0 " % number for number in range(20)]

    run(work())


def test_of_a_flood_only_so_many_are_answered() -> None:
    async def slow(request: Request) -> None:
        await asyncio.sleep(0.005)
        await echo(request)

    async def work() -> None:
        async with serving(slow) as (connect, _):
            reader, writer = await connect()
            writer.write(GET * 1000)
            everything = await reader.read(-1)
            assert everything.count(b"HTTP/1.1 200 OK") == module.PIPELINED + 1

    run(work())


@pytest.mark.parametrize(
    ("request_", "told", "stays"),
    [
        (GET, None, True),
        (GET.replace(b"Host", b"Connection: close\r\nHost"), "close", False),
        (GET.replace(b"1.1", b"1.0"), "close", False),
        (GET.replace(b"1.1", b"1.0").replace(b"Host", b"Connection: keep-alive\r\nHost"), "keep-alive", True),
    ],
)
def test_how_long_a_connection_stays(request_: bytes, told: str | None, stays: bool) -> None:
    async def work() -> None:
        async with serving() as (connect, _):
            reader, writer = await connect()
            writer.write(request_)
            assert (await answer(reader))[1].get("connection") == told
            if not stays:
                assert await reader.read() == b""
            else:
                writer.write(request_)
                assert (await answer(reader))[0] == 200

    run(work())


@pytest.mark.parametrize(
    "sent",
    [
        GET.replace(b"/a", b"/a#b"),
        GET.replace(b"/a", b"http://user@a/"),
        POST.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: \xff, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ],
)
def test_nothing_is_read_after_what_others_could_read_differently(sent: bytes) -> None:
    async def work() -> None:
        async with serving() as (connect, _):
            reader, writer = await connect()
            writer.write(sent + GET)
            status, headers, _body = await answer(reader)
            assert (status, headers["connection"]) == (400, "close")
            assert await reader.read() == b""

    run(work())


def test_what_comes_twice_is_joined() -> None:
    async def tell(request: Request) -> None:
        request.answer(200, [], repr((request.headers["x-a"], request.headers["cookie"])).encode())

    async def work() -> None:
        async with serving(tell) as (connect, _):
            reader, writer = await connect()
            writer.write(GET[:-2] + b"X-A: 1\r\nCookie: a=1\r\nX-A: 2\r\nCookie: b=2\r\n\r\n")
            assert (await answer(reader))[2].decode() == repr(("1,2", "a=1; b=2"))

    run(work())


@pytest.mark.parametrize(
    ("target", "host", "path", "query"),
    [
        (b"/a%20b?c=%20", "a", "/a b", "c=%20"),
        (b"/%ff", "a", "/\ufffd", ""),
        (b"*", "a", "*", ""),
        (b"http://elsewhere:81/a?b", "elsewhere:81", "/a", "b"),
        (b"HTTP://elsewhere", "elsewhere", "/", ""),
    ],
)
def test_what_is_asked_for(target: bytes, host: str, path: str, query: str) -> None:
    async def tell(request: Request) -> None:
        assert request.problem is None
        request.answer(200, [], repr((request.headers["host"], request.path, request.query)).encode())

    async def work() -> None:
        async with serving(tell) as (connect, _):
            reader, writer = await connect()
            writer.write(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await answer(reader))[2].decode() == repr((host, path, query))

    run(work())


def test_a_client_that_asks_first_is_told_to_send_its_body() -> None:
    async def work() -> None:
        async with serving() as (connect, _):
            reader, writer = await connect()
            writer.write(POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"abc")
            assert (await answer(reader))[2] == b"POST /a 3 abc"
            writer.write(POST.replace(b"1.1", b"1.0") + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc")
            assert (await answer(reader))[2] == b"POST /a 3 abc"

    run(work())


LENGTH = b"Content-Length: 6\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        [LENGTH + b"abcdef"],
        [LENGTH, b"abc", b"def"],
        [LENGTH + b"abcdefPOST /smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na"],
        [CHUNKED + b"6\r\nabcdef\r\n0\r\n\r\n"],
        [CHUNKED, b"3\r\nab", b"c\r\n3\r\ndef\r\n0\r\n", b"\r\n" + GET],
    ],
)
def test_a_wish_for_another_protocol_is_passed_over_and_the_body_is_not(pieces: list[bytes]) -> None:
    """Some clients ask for HTTP/2 with every first request."""

    async def work() -> None:
        async with serving() as (connect, _):
            reader, writer = await connect()
            upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
            writer.write(POST + upgrade + pieces[0])
            for piece in pieces[1:]:
                await asyncio.sleep(0.02)
                writer.write(piece)
            status, headers, body = await answer(reader)
            assert (status, body, headers["connection"]) == (200, b"POST /a 6 abcdef", "close")
            assert await reader.read() == b""

    run(work())


@pytest.mark.parametrize(
    "rest",
    [LENGTH + b"abc", CHUNKED + b"6\r\nabc", CHUNKED + b"zz\r\n", b"Transfer-Encoding: identity\r\n\r\nabc"],
)
def test_a_body_that_breaks_off_does_so_beside_a_wish_for_another_protocol_too(rest: bytes) -> None:
    async def work() -> None:
        async with serving() as (connect, _):
            reader, writer = await connect()
            writer.write(POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + rest)
            writer.write_eof()
            assert (await answer(reader))[::2] == (400, b"cut short")
            assert await reader.read() == b""

    run(work())


def test_a_long_body_waits_until_it_is_read() -> None:
    read = asyncio.Event()

    async def late(request: Request) -> None:
        await read.wait()
        await echo(request)

    async def work() -> None:
        async with serving(late) as (connect, _):
            reader, writer = await connect()
            size = 30 * 1024 * 1024
            writer.write(POST + b"Content-Length: %d\r\n\r\n" % size)
            writer.write(bytes(size))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await writer.drain()
            read.set()
            assert (await answer(reader))[2].startswith(b"POST /a %d " % size)

    run(work())


async def refuse(request: Request) -> None:
    request.answer(413, [], b"too large")


def test_who_still_sends_can_read_why_he_should_not() -> None:
    async def work() -> None:
        async with serving(refuse) as (connect, _):
            reader, writer = await connect()
            size = 30 * 1024 * 1024
            writer.write(POST + b"Content-Length: %d\r\n\r\n" % size)
            writer.write(bytes(size))
            status, headers, body = await answer(reader)
            assert (status, headers["connection"], body) == (413, "close", b"too large")
            await writer.drain()
            assert await reader.read() == b""

    run(work())


def test_who_ends_his_side_is_answered_all_the_same() -> None:
    async def work() -> None:
        async with serving() as (connect, _):
            for sent, expected in ((GET, 200), (POST + b"Content-Length: 3\r\n\r\nab", 400)):
                reader, writer = await connect()
                writer.write(sent)
                writer.write_eof()
                assert (await answer(reader))[0] == expected
                assert await reader.read() == b""
            reader, writer = await connect()
            writer.write(GET[:10])
            writer.write_eof()
            assert await reader.read() == b""

    run(work())


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"nonsense\r\n\r\n", [405]),
        (GET + b"\x00\x01\x02", [200, 405]),
        (GET.replace(b"Host: a", b"Host : a"), [400]),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", [400]),
        (GET[:-4] + b"\r\nX: " + b"a" * 300_000, [431]),
        (GET[:-4] + b"\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", [431]),
        (b"GET /?" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", [414]),
        (b"GET /?" + b"a" * 300_000, [414]),
    ],
)
def test_what_cannot_be_read_is_told_after_all_that_could(sent: bytes, statuses: list[int]) -> None:
    async def work() -> None:
        async with serving() as (connect, _):
            reader, writer = await connect()
            writer.write(sent)
            assert [(await answer(reader))[0] for _ in statuses] == statuses
            writer.write_eof()
            assert await reader.read() == b""

    run(work())


@pytest.mark.parametrize("endless", [b"0\r\nX: ", b"1;", b"0\r\n" + b"X: y\r\n" * 30_000])
def test_what_frames_a_body_has_an_end(endless: bytes) -> None:
    async def work() -> None:
        async with serving() as (connect, _):
            reader, writer = await connect()
            writer.write(POST + CHUNKED + b"3\r\nabc\r\n" + endless)
            writer.write(b"a" * 500_000)
            assert (await answer(reader))[::2] == (400, b"cut short")

    run(work())


@pytest.mark.parametrize("chunk", [b"1;%b\r\na\r\n" % (b"x" * 1000), b"1\r\na\r\n"])
def test_a_body_may_come_in_small_chunks(chunk: bytes) -> None:
    async def work() -> None:
        async with serving() as (connect, _):
            reader, writer = await connect()
            writer.write(POST + CHUNKED + chunk * 20_000 + b"0\r\n\r\n")
            assert (await answer(reader))[2].startswith(b"POST /a 20000 ")

    run(work())


def test_a_head_does_not_grow_by_what_came_before_it() -> None:
    async def work() -> None:
        async with serving() as (connect, _):
            reader, writer = await connect()
            writer.write(POST + b"Content-Length: 200000\r\n\r\n" + bytes(200_000) + GET[:-2])
            assert (await answer(reader))[0] == 200
            for rest in (b"X: y", b"\r\n\r\n"):
                await asyncio.sleep(0.05)
                writer.write(rest)
            assert (await answer(reader))[0] == 200

    run(work())


def test_one_head_after_the_other_may_be_long() -> None:
    async def work() -> None:
        async with serving() as (connect, _):
            reader, writer = await connect()
            for _ in range(5):
                writer.write(GET[:-2] + b"X: " + b"a" * 40_000 + b"\r\n\r\n")
                assert (await answer(reader))[0] == 200

    run(work())


def test_time_runs_out_for_a_head_and_between_two_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_TIMEOUT", 0.5)
    monkeypatch.setattr(module, "IDLE", 0.5)

    async def work() -> None:
        async with serving() as (connect, _):
            (silent, _), (half, begin), (idle, asks) = [await connect() for _ in range(3)]
            begin.write(GET[:10])
            asks.write(GET)
            assert (await answer(idle))[0] == 200
            assert (await answer(half))[0] == 408
            assert [await reader.read() for reader in (silent, half, idle)] == [b"", b"", b""]

    run(work())


async def spout(request: Request) -> None:
    try:
        request.begin(200, [], 100 * 1024 * 1024)
        for _ in range(1600):
            await request.send(bytes(65_536))
        request.end()
    except OSError:
        request.abort()


def test_who_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEND_TIMEOUT", 0.5)

    async def work() -> None:
        async with serving(spout) as (connect, _):
            reader, writer = await connect()
            writer.write(GET)
            await asyncio.sleep(1.5)
            assert len(await reader.read()) < 50 * 1024 * 1024

    run(work())


def test_a_long_answer_comes_whole_and_another_may_follow() -> None:
    async def work() -> None:
        async with serving(spout) as (connect, _):
            reader, writer = await connect()
            for _ in range(2):
                writer.write(GET)
                status, _headers, body = await answer(reader)
                assert (status, len(body)) == (200, 100 * 1024 * 1024)

    run(work())


def test_a_client_that_goes_ends_the_answer() -> None:
    ended = asyncio.Event()

    async def told(request: Request) -> None:
        await spout(request)
        ended.set()

    async def work() -> None:
        async with serving(told) as (connect, _):
            reader, writer = await connect()
            writer.write(GET)
            await reader.read(10)
            writer.transport.abort()
            await ended.wait()

    run(work())


def test_idle_connections_make_way_and_busy_ones_do_not() -> None:
    go = asyncio.Event()

    async def waits(request: Request) -> None:
        await go.wait()
        await echo(request)

    async def work() -> None:
        async with serving(waits, most=2) as (connect, _):
            first, second, third = await connect(), await connect(), await connect()
            assert await first[0].read() == b""
            for _, writer in (second, third):
                writer.write(GET)
            await asyncio.sleep(0.1)
            refused, _ = await connect()
            assert await refused.read() == b""
            go.set()
            for reader, _ in (second, third):
                assert (await answer(reader))[0] == 200

    run(work())


def test_at_the_end_what_was_asked_is_answered_and_idle_connections_close() -> None:
    go = asyncio.Event()

    async def waits(request: Request) -> None:
        await go.wait()
        await echo(request)

    async def work() -> None:
        async with serving(waits) as (connect, clients):
            (idle, _), (reader, writer) = await connect(), await connect()
            writer.write(GET + GET)
            await asyncio.sleep(0.1)
            finishing = asyncio.ensure_future(clients.finish(5))
            assert await idle.read() == b""
            go.set()
            assert (await answer(reader))[1].get("connection") is None
            assert (await answer(reader))[1].get("connection") == "close"
            await finishing

    run(work())


def test_the_end_waits_only_so_long() -> None:
    async def never(_request: Request) -> None:
        await asyncio.Event().wait()

    async def work() -> None:
        async with serving(never) as (connect, clients):
            reader, writer = await connect()
            writer.write(GET)
            await asyncio.sleep(0.1)
            await clients.finish(0.2)
            assert await reader.read() == b""

    run(work())


def test_at_the_end_no_request_is_taken_without_its_body() -> None:
    go = asyncio.Event()
    bodies: list[bytes] = []

    async def waits(request: Request) -> None:
        bodies.append(await request.read())
        await go.wait()
        request.answer(200, [], b"")

    async def work() -> None:
        async with serving(waits) as (connect, clients):
            reader, writer = await connect()
            writer.write(GET)
            await asyncio.sleep(0.1)
            finishing = asyncio.ensure_future(clients.finish(5))
            await asyncio.sleep(0.01)
            writer.write(POST + b"Content-Length: 3\r\n\r\nabc")
            await asyncio.sleep(0.1)
            go.set()
            assert (await answer(reader))[1].get("connection") == "close"
            assert await reader.read() == b""
            assert bodies == [b""]
            await finishing

    run(work())


async def backlog(request: Request, most: int) -> int:
    """Send until the client has to take some before there is room for more; how much that was."""
    transport = request._line._transport  # type: ignore[attr-defined]
    sent = 0
    while transport.get_write_buffer_size() <= most:
        await request.send(bytes(32_768))
        await asyncio.sleep(0)
        sent += 32_768
    return sent


def test_the_last_of_an_answer_is_not_cut_off_while_the_client_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER", 0.1)
    sent: list[int] = []

    async def waits(request: Request) -> None:
        request.begin(200, [], 1 << 40)
        sent.append(await backlog(request, 0))
        request.end()

    async def work() -> None:
        async with serving(waits) as (connect, _):
            reader, writer = await connect()
            writer.write(GET[:-2] + b"Connection: close\r\n\r\n")
            await asyncio.sleep(2.5)
            await reader.readuntil(b"\r\n\r\n")
            assert [len(await reader.read())] == sent

    run(work())


def test_who_takes_nothing_of_the_last_of_an_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER", 0.1)
    monkeypatch.setattr(module, "SEND_TIMEOUT", 0.1)
    sent: list[int] = []

    async def waits(request: Request) -> None:
        request.begin(200, [], 1 << 40)
        sent.append(await backlog(request, 0))
        request.end()

    async def work() -> None:
        async with serving(waits) as (connect, _):
            reader, writer = await connect()
            writer.write(GET[:-2] + b"Connection: close\r\n\r\n")
            await asyncio.sleep(4)
            await reader.readuntil(b"\r\n\r\n")
            assert len(await reader.read()) < sent[0]

    run(work())


def test_who_has_taken_a_long_answer_may_then_be_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEND_TIMEOUT", 1)
    size = 20 * 1024 * 1024

    async def whole(request: Request) -> None:
        request.answer(200, [], bytes(size))

    async def work() -> None:
        async with serving(whole) as (connect, _):
            reader, writer = await connect()
            for _ in range(2):
                writer.write(GET)
                assert len((await answer(reader))[2]) == size
                await asyncio.sleep(2.5)

    run(work())


def test_a_head_that_began_too_early_has_no_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_TIMEOUT", 0.5)

    async def work() -> None:
        async with serving() as (connect, _):
            reader, writer = await connect()
            writer.write(GET + GET[:-2])
            assert [(await answer(reader))[0] for _ in range(2)] == [200, 408]

    run(work())
