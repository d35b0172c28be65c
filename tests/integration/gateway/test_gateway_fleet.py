"""Four gateways, each a process of its own, on one Valkey: exact limits, revocation, and Valkey dying.

``HEARTGUARD_RUNS`` says how often the limit is tried (3 times unless told otherwise; 100 for the long proof).
"""

import http.client
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from shutil import rmtree
from threading import Event, Thread
from typing import Any

import pytest
from redis import Redis

from heartguard.local.files import private_folder
from heartguard.local.server import Running
from heartguard.local.valkey import Valkey
from heartguard.valkey import REVOCATIONS_COMPLETE, REVOKED_SESSION, REVOKED_TOKEN

from ..waiting import wait_until

Fixture = Any

GATEWAYS = 4
CLIENTS = 64
LIMIT = 40
RUNS = int(os.environ.get("HEARTGUARD_RUNS", "3"))

_addresses = count(1)


class Fleet:
    """The gateways, their Valkey and the service behind them."""

    def __init__(self, valkey: Valkey, service: Fixture, ports: list[int]) -> None:
        self.store = valkey
        self.service = service
        self.ports = ports
        self.running = Running(valkey)

    def complete(self) -> None:
        """Say that Valkey knows every revocation, as the auth service does."""
        with self.redis() as client:
            client.set(REVOCATIONS_COMPLETE, client.info("server")["run_id"])

    @contextmanager
    def redis(self) -> Iterator[Redis]:
        with Redis.from_url(self.store.url) as client:
            yield client

    def restart_empty(self) -> None:
        for file in self.store.folder.rglob("appendonlydir"):
            rmtree(file)
        self.running = Running(self.store)

    def ask(self, port: int, token: str, address: str, times: int = 1) -> list[int]:
        """The statuses of ``times`` requests over one connection, as from ``address``."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": address}
        statuses = []
        for _ in range(times):
            connection.request("GET", "/auth/profile", headers=headers)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()
        return statuses

    def all_at_once(self, token: str, address: str) -> Counter[int]:
        """What :data:`CLIENTS` clients get that each ask four times, spread over the gateways."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            asked = [pool.submit(self.ask, self.ports[n % GATEWAYS], token, address, 4) for n in range(CLIENTS)]
            return Counter(status for one in asked for status in one.result())


@pytest.fixture(scope="module")
def fleet(kit: Fixture, free_port: Callable[[], int], stores_folder: Path) -> Iterator[Fleet]:
    valkey = Valkey(stores_folder / "fleet", stores_folder / "secrets")
    private_folder(stores_folder / "secrets")
    with ExitStack() as stack:
        service = stack.enter_context(kit.Service().running())
        made = Fleet(valkey, service, [free_port() for _ in range(GATEWAYS)])
        stack.callback(lambda: made.running.stop())
        variables = {
            "REDIS_URL": valkey.url, "AUTH_URL": service.url, "RATE_LIMIT": f"{LIMIT}/hour",
            "TRUSTED_PROXIES": "127.0.0.0/8",
        }  # fmt: skip
        with ThreadPoolExecutor(GATEWAYS) as pool:
            starting = [kit.gateway_process(port, **variables) for port in made.ports]
            list(pool.map(stack.enter_context, starting))
        made.complete()
        yield made


@pytest.fixture
def address() -> str:
    """One that no other test has used up."""
    number = next(_addresses)
    return f"198.18.{number >> 8}.{number & 255}"


@pytest.mark.parametrize("run", range(RUNS))
def test_the_limit_is_exact(fleet: Fleet, kit: Fixture, address: str, run: int) -> None:
    assert fleet.all_at_once(kit.issue(), address) == {200: LIMIT, 429: CLIENTS * 4 - LIMIT}


@pytest.mark.parametrize("which", ["token", "session"])
def test_a_revoked_token_is_refused_by_every_gateway(fleet: Fleet, kit: Fixture, address: str, which: str) -> None:
    token = kit.issue(sid=f"revoked {which}")
    claims = kit.tokens().verify(token)
    assert [fleet.ask(port, token, address) for port in fleet.ports] == [[200]] * GATEWAYS
    with fleet.redis() as client:
        client.set(REVOKED_TOKEN + claims.jti if which == "token" else REVOKED_SESSION + claims.sid, 1, ex=60)
    assert [fleet.ask(port, token, address) for port in fleet.ports] == [[401]] * GATEWAYS


def test_valkey_is_killed_while_many_ask(fleet: Fleet, kit: Fixture, address: str) -> None:
    token, seen, done = kit.issue(), Counter[int](), Event()

    def keep_asking(port: int) -> None:
        while not done.is_set():
            seen.update(fleet.ask(port, token, address))

    clients = [Thread(target=keep_asking, args=(port,)) for port in fleet.ports * 4]
    for client in clients:
        client.start()
    time.sleep(0.3)
    fleet.running.kill()
    time.sleep(1)
    fleet.restart_empty()
    fleet.complete()
    time.sleep(2)
    done.set()
    for client in clients:
        client.join(20)
    assert set(seen) == {200, 429}
    # One bucket in the first Valkey, one in each gateway's memory meanwhile, one in the Valkey that began empty.
    assert LIMIT <= seen[200] <= LIMIT * (GATEWAYS + 2)
    assert fleet.all_at_once(kit.issue(), "198.19.0.1") == {200: LIMIT, 429: CLIENTS * 4 - LIMIT}


def test_a_revoked_token_stays_refused_by_a_valkey_that_lost_everything(
    fleet: Fleet, kit: Fixture, address: str
) -> None:
    token = kit.issue()
    with fleet.redis() as client:
        client.set(REVOKED_TOKEN + kit.tokens().verify(token).jti, 1, ex=60)
    fleet.service.active = False
    fleet.running.kill()
    try:
        assert [fleet.ask(port, token, address) for port in fleet.ports] == [[401]] * GATEWAYS
        fleet.restart_empty()
        wait_until(lambda: fleet.ask(fleet.ports[0], token, address) == [401], 1)
        assert [fleet.ask(port, token, address) for port in fleet.ports] == [[401]] * GATEWAYS
    finally:
        fleet.service.active = True
        fleet.complete()


def test_with_valkey_and_auth_away_nobody_passes(
    fleet: Fleet, kit: Fixture, address: str, free_port: Callable[[], int]
) -> None:
    port = free_port()
    variables = {"REDIS_URL": f"redis://127.0.0.1:{free_port()}", "AUTH_URL": f"http://127.0.0.1:{free_port()}"}
    with kit.gateway_process(port, **variables):
        assert set(fleet.ask(port, kit.issue(), address, 20)) == {503}
