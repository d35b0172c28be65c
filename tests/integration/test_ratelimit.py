"""The token bucket: exact for any number of limiters, with Valkey and without."""

import asyncio
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from heartguard.errors import Unavailable
from heartguard.local.server import Running
from heartguard.local.valkey import Valkey, program
from heartguard.pipeline import Pipeline
from heartguard.ratelimit import AsyncRateLimiter, Bucket, MemoryBuckets, Policy, RateLimiter, Taken
from heartguard.resp import Script
from heartguard.settings import Rate
from heartguard.valkey import FastValkey

_owners = map(str, count())


def bucket(limit: int, seconds: int = 3600, owner: str | None = None, name: str = "ip") -> Bucket:
    return Bucket(Policy(name, Rate(limit=limit, seconds=seconds)), owner or next(_owners))


T = TypeVar("T")


class OnLoop:
    """A :class:`Pipeline` on a loop in a thread, for tests to use as they use a :class:`FastValkey`."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.pipeline = Pipeline(url)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    @property
    def away(self) -> bool:
        return self.pipeline.away

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str]) -> tuple[Any, bytes]:
        return self.wait(self.pipeline.run(script, keys, arguments))

    def ping(self) -> None:
        self.wait(self.pipeline.ping())

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self.pipeline.close)
        self._loop.call_soon_threadsafe(self._loop.call_later, 0.05, self._loop.stop)
        self._thread.join(5)
        self._loop.close()


class LimiterOnLoop:
    def __init__(self, valkey: OnLoop) -> None:
        self._valkey = valkey
        self._limiter = AsyncRateLimiter(valkey.pipeline)

    def take(self, buckets: Sequence[Bucket], lookups: Sequence[str] = ()) -> Taken:
        return self._valkey.wait(self._limiter.take(buckets, lookups))


AnyValkey = FastValkey | OnLoop
AnyLimiter = RateLimiter | LimiterOnLoop
Connect = Callable[[str], AnyValkey]


def limiter_on(valkey: AnyValkey) -> AnyLimiter:
    return LimiterOnLoop(valkey) if isinstance(valkey, OnLoop) else RateLimiter(valkey)


@pytest.fixture(params=[FastValkey, OnLoop], ids=["threads", "loop"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes connections of both kinds: they must not differ."""
    with ExitStack() as stack:

        def made(url: str) -> AnyValkey:
            valkey: AnyValkey = request.param(url)
            stack.callback(valkey.close)
            return valkey

        yield made


@pytest.fixture
def valkey(connect: Connect, valkey_url: str) -> AnyValkey:
    return connect(valkey_url)


@pytest.fixture(params=["valkey", "memory"])
def limiter(
    request: pytest.FixtureRequest, valkey: AnyValkey, connect: Connect, free_port: Callable[[], int]
) -> AnyLimiter:
    """One that counts in Valkey, and one that finds none: they must not differ."""
    return limiter_on(valkey if request.param == "valkey" else connect(f"redis://127.0.0.1:{free_port()}"))


def test_a_bucket_holds_its_limit_and_then_refuses(limiter: AnyLimiter) -> None:
    mine = bucket(3, 60)
    taken = [limiter.take([mine]) for _ in range(4)]
    assert [one.allowed for one in taken] == [True, True, True, False]
    assert [one.states[0][0] for one in taken] == [2, 1, 0, 0]
    assert taken[0].states[0][1] == 20_000
    assert all(19_000 < one.states[0][1] <= 20_000 for one in taken)
    assert dict(taken[0].headers()) == {"ratelimit-policy": '"ip";q=3;w=60', "ratelimit": '"ip";r=2;t=20'}
    refusal = taken[-1].refusal()
    assert (refusal.status, refusal.headers) == (429, {"Retry-After": "20"})
    assert taken[-1].exhausted == ["ip"]


def test_it_fills_evenly(limiter: AnyLimiter) -> None:
    mine = bucket(20, 1)
    begun = time.monotonic()
    allowed = 0
    while time.monotonic() < begun + 0.5:
        allowed += limiter.take([mine]).allowed
    elapsed = time.monotonic() - begun
    assert 20 + 0.4 * 20 <= allowed <= 20 + elapsed * 20


def test_all_or_nothing(limiter: AnyLimiter) -> None:
    small, large = bucket(1), bucket(5, name="user")
    assert limiter.take([small, large]).allowed
    refused = limiter.take([small, large])
    assert not refused.allowed
    assert refused.exhausted == ["ip"]
    assert limiter.take([large]).states[0][0] == 3, "the refused request took nothing"


def test_nothing_taken_is_a_full_bucket(limiter: AnyLimiter) -> None:
    empty, untouched = bucket(1), bucket(7, name="user")
    limiter.take([empty])
    assert limiter.take([empty, untouched]).states[1] == (7, 0)


def test_another_rate_is_another_bucket(limiter: AnyLimiter) -> None:
    owner = next(_owners)
    assert limiter.take([bucket(1, owner=owner)]).allowed
    assert limiter.take([bucket(2, owner=owner)]).allowed
    assert not limiter.take([bucket(1, owner=owner)]).allowed


@pytest.mark.parametrize("rate", [(1_000_000, 3600), (1_000_000, 1), (1, 3600), (7, 1)])
def test_the_widest_and_the_narrowest(limiter: AnyLimiter, rate: tuple[int, int]) -> None:
    mine = bucket(*rate)
    left, wait = limiter.take([mine]).states[0]
    assert left == rate[0] - 1
    assert wait == -(-rate[1] * 1000 // rate[0])


def test_keys_are_looked_up_on_the_way(valkey: AnyValkey, valkey_url: str) -> None:
    with Redis.from_url(valkey_url) as client:
        client.set("looked-up", "here", ex=60)
        run_id = client.info("server")["run_id"].encode()
        mine = bucket(5, 60)
        taken = limiter_on(valkey).take([mine], ["looked-up", "not-there"])
        assert taken.found == [b"here", None]
        assert taken.run_id == run_id
        assert 0 < client.pttl(mine.key) <= 12_000, "a bucket that is full again needs no memory"


def test_never_one_too_many(connect: Connect, valkey_url: str) -> None:
    """64 clients on 4 limiters, two shared buckets: exactly the limit passes, and nothing is lost."""
    limiters = [limiter_on(connect(valkey_url)) for _ in range(4)]
    # Windows so long that no token comes back however slow the machine is.
    shared, wide = bucket(500, 900_000), bucket(2_000, 900_000, name="user")
    allowed: list[bool] = []

    def client(limiter: AnyLimiter) -> None:
        for _ in range(20):
            taken = limiter.take([shared, wide])
            assert taken.found == [], "Valkey answered"
            allowed.append(taken.allowed)

    threads = [threading.Thread(target=client, args=(limiters[number % 4],)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(allowed) == 64 * 20
    assert sum(allowed) == 500
    assert limiters[0].take([wide]).states[0][0] == 2_000 - 501


def test_never_one_too_many_in_memory() -> None:
    buckets, mine, allowed = MemoryBuckets(), bucket(100, 900_000), []

    def client() -> None:
        for _ in range(50):
            allowed.append(buckets.take([mine]).allowed)  # noqa: PERF401 - as they come

    threads = [threading.Thread(target=client) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(allowed) == 100


def test_memory_is_bounded_and_forgets_the_longest_unused() -> None:
    buckets = MemoryBuckets(size=2)
    first, second, third = bucket(5), bucket(5), bucket(5)
    for one in (first, second, first, third):
        buckets.take([one], now=0)
    assert buckets.take([first], now=0).states[0][0] == 2
    assert buckets.take([second], now=0).states[0][0] == 4


@given(
    rate=st.tuples(st.integers(1, 50), st.sampled_from([1, 60, 3600])),
    pauses=st.lists(st.integers(0, 5_000_000), max_size=60),
)
def test_over_any_time_no_more_than_the_bucket_and_what_it_gained(rate: tuple[int, int], pauses: list[int]) -> None:
    limit, seconds = rate
    buckets, mine = MemoryBuckets(), bucket(limit, seconds)
    now, allowed = 0, 0
    for pause in pauses:
        now += pause
        taken = buckets.take([mine], now=now)
        allowed += taken.allowed
        assert allowed <= limit + now * limit // (seconds * 1_000_000)
        if not taken.allowed:
            wait = taken.states[0][1]
            assert not buckets.take([mine], now=now + max(0, wait - 2) * 1000).allowed or wait <= 2
            assert MemoryBuckets.take(buckets, [mine], now=now).states[0][0] == 0


def test_time_that_steps_back_gives_nothing() -> None:
    buckets, mine = MemoryBuckets(), bucket(1, 1)
    assert buckets.take([mine], now=5_000_000).allowed
    assert not buckets.take([mine], now=1_000_000).allowed
    assert buckets.take([mine], now=6_000_000).allowed


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory, stores_folder: Path) -> Iterator[Any]:
    """A Valkey that the test may kill and start again."""
    store = Valkey(stores_folder / "limits", stores_folder / "secrets")
    running = [Running(store)]
    yield store, running
    running[0].stop()


def test_valkey_goes_and_comes_back(own: tuple[Valkey, list[Running]], connect: Connect) -> None:
    store, running = own
    valkey = connect(store.url)
    limiter, mine = limiter_on(valkey), bucket(3)
    try:
        assert limiter.take([mine]).found == []
        first = limiter.take([mine], ["x"]).run_id
        running[0].stop()
        taken = [limiter.take([mine]) for _ in range(4)]
        assert [one.found for one in taken] == [None] * 4
        assert [one.allowed for one in taken] == [True, True, True, False], "a limit in memory, not none"
        assert valkey.away
        running[0] = Running(store)
        end = time.monotonic() + 5
        while (back := limiter.take([mine], ["x"])).found is None:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert back.run_id != first
        assert not valkey.away
    finally:
        valkey.close()


def test_connections_that_went_stale_are_replaced_at_once(own: tuple[Valkey, list[Running]], connect: Connect) -> None:
    store, running = own
    valkey = connect(store.url)
    try:
        valkey.ping()
        running[0].stop()
        running[0] = Running(store)
        valkey.ping()
        assert not valkey.away
    finally:
        valkey.close()


def test_a_valkey_that_hangs_holds_each_caller_up_once(own: tuple[Valkey, list[Running]], connect: Connect) -> None:
    store, _ = own
    valkey = connect(store.url)
    limiter, mine = limiter_on(valkey), bucket(50)
    pid = int(Redis.from_url(store.url).info("server")["process_id"])
    try:
        limiter.take([mine])
        os.kill(pid, signal.SIGSTOP)
        begun = time.monotonic()
        assert limiter.take([mine]).found is None
        first = time.monotonic() - begun
        assert 0.4 < first < 3
        for _ in range(20):
            assert limiter.take([mine]).found is None
        assert time.monotonic() - begun < first + 0.4
    finally:
        os.kill(pid, signal.SIGCONT)
        valkey.close()


def test_over_tcp_with_a_database_of_its_own(connect: Connect, free_port: Callable[[], int], tmp_path: Path) -> None:
    port = free_port()
    options = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--requirepass",
        "secret",
        "--dir",
        str(tmp_path),
    ]
    server = subprocess.Popen([program(), *options], stdout=subprocess.DEVNULL)
    valkey = connect(f"redis://:secret@127.0.0.1:{port}/3")
    limiter, mine = limiter_on(valkey), bucket(5)
    try:
        end = time.monotonic() + 10
        while limiter.take([mine]).found is None:
            assert time.monotonic() < end
            time.sleep(0.02)
        with Redis(host="127.0.0.1", port=port, password="secret", db=3) as client:
            assert client.exists(mine.key)
    finally:
        valkey.close()
        server.terminate()
        server.wait(10)


def test_a_script_that_valkey_forgot_is_told_again(valkey: AnyValkey, valkey_url: str) -> None:
    script = Script("return redis.call('INCR', KEYS[1])")
    assert valkey.run(script, ["told"], [])[0] == 1
    with Redis.from_url(valkey_url) as client:
        client.script_flush()
        assert valkey.run(script, ["told"], [])[0] == 2
        client.delete("told")


def test_an_answer_that_is_an_error_is_none(valkey: AnyValkey) -> None:
    with pytest.raises(Unavailable):
        valkey.run(Script("return redis.call('NONSENSE')"), [], [])


def test_a_wrong_password_is_no_valkey(connect: Connect, valkey_url: str) -> None:
    wrong = connect(valkey_url.replace("unix://:", "unix://:not"))
    with pytest.raises(Unavailable):
        wrong.ping()
    with pytest.raises(Unavailable):
        wrong.ping()
    wrong.close()


def test_many_commands_follow_one_another_on_one_connection(valkey_url: str) -> None:
    """All of them are under way at once, and each gets its own answer."""
    echo = Script("return ARGV[1]")
    valkey = OnLoop(valkey_url)

    async def all_at_once() -> list[tuple[Any, bytes]]:
        return await asyncio.gather(*(valkey.pipeline.run(echo, [], [str(n)]) for n in range(500)))

    try:
        valkey.ping()
        with Redis.from_url(valkey_url) as client:
            before = client.info("stats")["total_connections_received"]
            assert [answer for answer, _ in valkey.wait(all_at_once())] == [str(n).encode() for n in range(500)]
            assert client.info("stats")["total_connections_received"] == before
    finally:
        valkey.close()


def test_what_does_not_speak_its_protocol_is_no_valkey() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        valkey = OnLoop(f"redis://127.0.0.1:{server.getsockname()[1]}")

        def talk() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"220 mail.example ESMTP\r\n")
                connection.recv(65_536)

        thread = threading.Thread(target=talk)
        thread.start()
        try:
            with pytest.raises(Unavailable):
                valkey.ping()
            assert valkey.away
        finally:
            valkey.close()
            thread.join(5)
