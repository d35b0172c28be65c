"""The token bucket: exact for any number of limiters, with Valkey and without."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from heartguard.errors import Unavailable
from heartguard.local.server import Running
from heartguard.local.valkey import Valkey, program
from heartguard.ratelimit import Bucket, MemoryBuckets, Policy, RateLimiter
from heartguard.resp import Script
from heartguard.settings import Rate
from heartguard.valkey import FastValkey

_owners = map(str, count())


def bucket(limit: int, seconds: int = 3600, owner: str | None = None, name: str = "ip") -> Bucket:
    return Bucket(Policy(name, Rate(limit=limit, seconds=seconds)), owner or next(_owners))


@pytest.fixture
def valkey(valkey_url: str) -> Iterator[FastValkey]:
    made = FastValkey(valkey_url)
    yield made
    made.close()


@pytest.fixture(params=["valkey", "memory"])
def limiter(request: pytest.FixtureRequest, valkey: FastValkey, free_port: Callable[[], int]) -> RateLimiter:
    """One that counts in Valkey, and one that finds none: they must not differ."""
    return RateLimiter(valkey if request.param == "valkey" else FastValkey(f"redis://127.0.0.1:{free_port()}"))


def test_a_bucket_holds_its_limit_and_then_refuses(limiter: RateLimiter) -> None:
    mine = bucket(3, 60)
    taken = [limiter.take([mine]) for _ in range(4)]
    assert [one.allowed for one in taken] == [True, True, True, False]
    assert [one.states[0][0] for one in taken] == [2, 1, 0, 0]
    assert taken[0].states[0][1] == 20_000
    assert all(19_000 < one.states[0][1] <= 20_000 for one in taken)
    assert dict(taken[0].headers()) == {"RateLimit-Policy": '"ip";q=3;w=60', "RateLimit": '"ip";r=2;t=20'}
    refusal = taken[-1].refusal()
    assert (refusal.status, refusal.headers) == (429, {"Retry-After": "20"})
    assert taken[-1].exhausted == ["ip"]


def test_it_fills_evenly(limiter: RateLimiter) -> None:
    mine = bucket(20, 1)
    begun = time.monotonic()
    allowed = 0
    while time.monotonic() < begun + 0.5:
        allowed += limiter.take([mine]).allowed
    elapsed = time.monotonic() - begun
    assert 20 + 0.4 * 20 <= allowed <= 20 + elapsed * 20


def test_all_or_nothing(limiter: RateLimiter) -> None:
    small, large = bucket(1), bucket(5, name="user")
    assert limiter.take([small, large]).allowed
    refused = limiter.take([small, large])
    assert not refused.allowed
    assert refused.exhausted == ["ip"]
    assert limiter.take([large]).states[0][0] == 3, "the refused request took nothing"


def test_nothing_taken_is_a_full_bucket(limiter: RateLimiter) -> None:
    empty, untouched = bucket(1), bucket(7, name="user")
    limiter.take([empty])
    assert limiter.take([empty, untouched]).states[1] == (7, 0)


def test_another_rate_is_another_bucket(limiter: RateLimiter) -> None:
    assert limiter.take([bucket(1, owner="changed")]).allowed
    assert limiter.take([bucket(2, owner="changed")]).allowed
    assert not limiter.take([bucket(1, owner="changed")]).allowed


@pytest.mark.parametrize("rate", [(1_000_000, 3600), (1_000_000, 1), (1, 3600), (7, 1)])
def test_the_widest_and_the_narrowest(limiter: RateLimiter, rate: tuple[int, int]) -> None:
    mine = bucket(*rate)
    left, wait = limiter.take([mine]).states[0]
    assert left == rate[0] - 1
    assert wait == -(-rate[1] * 1000 // rate[0])


def test_keys_are_looked_up_on_the_way(valkey: FastValkey, valkey_url: str) -> None:
    with Redis.from_url(valkey_url) as client:
        client.set("looked-up", "here", ex=60)
        run_id = client.info("server")["run_id"].encode()
        mine = bucket(5, 60)
        taken = RateLimiter(valkey).take([mine], ["looked-up", "not-there"])
        assert taken.found == [b"here", None]
        assert taken.run_id == run_id
        assert 0 < client.pttl(mine.key) <= 12_000, "a bucket that is full again needs no memory"


def test_never_one_too_many(valkey_url: str) -> None:
    """64 clients on 4 limiters, two shared buckets: exactly the limit passes, and nothing is lost."""
    with ExitStack() as stack:
        connections = [FastValkey(valkey_url) for _ in range(4)]
        limiters = [RateLimiter(connection) for connection in connections]
        for connection in connections:
            stack.callback(connection.close)
        shared, wide = bucket(500), bucket(10_000, name="user")
        allowed: list[bool] = []

        def client(limiter: RateLimiter) -> None:
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
        assert limiters[0].take([wide]).states[0][0] == 10_000 - 501


def test_never_one_too_many_in_memory() -> None:
    buckets, mine, allowed = MemoryBuckets(), bucket(100), []

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


def test_valkey_goes_and_comes_back(own: tuple[Valkey, list[Running]]) -> None:
    store, running = own
    valkey = FastValkey(store.url)
    limiter, mine = RateLimiter(valkey), bucket(3)
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


def test_connections_that_went_stale_are_replaced_at_once(own: tuple[Valkey, list[Running]]) -> None:
    store, running = own
    valkey = FastValkey(store.url)
    try:
        valkey.ping()
        running[0].stop()
        running[0] = Running(store)
        valkey.ping()
        assert not valkey.away
    finally:
        valkey.close()


def test_a_valkey_that_hangs_holds_each_caller_up_once(own: tuple[Valkey, list[Running]]) -> None:
    store, _ = own
    valkey = FastValkey(store.url)
    limiter, mine = RateLimiter(valkey), bucket(50)
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


def test_over_tcp_with_a_database_of_its_own(free_port: Callable[[], int], tmp_path: Path) -> None:
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
    valkey = FastValkey(f"redis://:secret@127.0.0.1:{port}/3")
    limiter, mine = RateLimiter(valkey), bucket(5)
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


def test_a_script_that_valkey_forgot_is_told_again(valkey: FastValkey, valkey_url: str) -> None:
    script = Script("return redis.call('INCR', KEYS[1])")
    assert valkey.run(script, ["told"], [])[0] == 1
    with Redis.from_url(valkey_url) as client:
        client.script_flush()
        assert valkey.run(script, ["told"], [])[0] == 2
        client.delete("told")


def test_an_answer_that_is_an_error_is_none(valkey: FastValkey) -> None:
    with pytest.raises(Unavailable):
        valkey.run(Script("return redis.call('NONSENSE')"), [], [])


def test_a_wrong_password_is_no_valkey(valkey_url: str) -> None:
    wrong = FastValkey(valkey_url.replace("unix://:", "unix://:not"))
    with pytest.raises(Unavailable):
        wrong.ping()
    with pytest.raises(Unavailable):
        wrong.ping()
    wrong.close()
