"""Telegraf writes through the gateway: every good metric arrives once, and its log says of every bad one what is wrong.

``HEARTGUARD_AWAY_SECONDS=20`` leaves the service and the store away for that long.
"""

import os
import random
import re
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
import urllib3
from redis import Redis

from heartguard.local.errors import SetupError
from heartguard.local.files import private_folder
from heartguard.local.postgres import Postgres
from heartguard.local.readiness import is_ready
from heartguard.local.server import Running
from heartguard.migrate import migrate
from heartguard.services import SERVICES
from heartguard.settings import ROOT
from heartguard.valkey import REVOCATIONS_COMPLETE

from ..callers import SECRET, TOKENS
from ..killing import kill
from ..waiting import wait_until
from . import fake_influx, faults
from .conftest import CHOICE
from .telegraf import PROGRAM, Agent, Imitation, Target, agent, request

AWAY = float(os.environ.get("HEARTGUARD_AWAY_SECONDS", "2"))
METRICS = 10_000
DAY = 86_400 * 10**9
SETUP = {"username": "tests", "password": "a password of the tests", "org": "heartguard", "bucket": "x", "token": "t"}


class Away(Protocol):
    """A store that can be killed, and started again with what it had."""

    environ: dict[str, str]

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def end(self) -> None: ...


class OwnPostgres:
    """A durable one."""

    def __init__(self, folder: Path, _port: int) -> None:
        self._store = Postgres(folder / "postgres", private_folder(folder / "secrets"))
        self.start()
        migrate(self._store.url, passwords={"timeseries": self._store.password("timeseries")})
        self.environ = {"DATABASE_URL": self._store.url_for("timeseries")}

    def start(self) -> None:
        wait_until(self._started, 20)

    def _started(self) -> bool:
        try:
            self._running = Running(self._store)
        except SetupError:  # a process of the killed server has not quite ended yet
            return False
        return True

    def kill(self) -> None:
        kill(self._running.pid)
        self._running.kill()

    def end(self) -> None:
        self._running.kill()


class OwnInfluxd:
    """A real one."""

    def __init__(self, folder: Path, port: int) -> None:
        assert CHOICE.found is not None
        self._url = f"http://127.0.0.1:{port}"
        paths = [f"--{name}-path={folder / name}" for name in ("bolt", "sqlite", "engine")]
        self._command = [
            str(CHOICE.found.path),
            *paths,
            f"--http-bind-address=127.0.0.1:{port}",
            "--reporting-disabled",
        ]
        self.start()
        answer = urllib3.request("POST", f"{self._url}/api/v2/setup", json=SETUP, timeout=20, retries=False)
        assert answer.status == 201, answer.data
        self.environ = {"INFLUX_URL": self._url, "INFLUX_TOKEN": SETUP["token"], "INFLUX_ORG": SETUP["org"]}

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, 30)

    def _answers(self) -> bool:
        with suppress(urllib3.exceptions.HTTPError):
            return urllib3.request("GET", f"{self._url}/health", timeout=1, retries=False).status == 200
        return False

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    end = kill


class OwnImitation:
    """The tests' own, which keeps what it has in memory, behind a proxy that can go away."""

    def __init__(self, _folder: Path, _port: int) -> None:
        self._all, self._away = ExitStack(), ExitStack()
        address = self._all.enter_context(fake_influx.serving())
        self._proxy = self._all.enter_context(faults.before(address.url))
        self.environ = {"INFLUX_URL": self._proxy.url, "INFLUX_TOKEN": address.token, "INFLUX_ORG": address.org}

    def start(self) -> None:
        self._away.close()

    def kill(self) -> None:
        self._away.enter_context(self._proxy.away())

    def end(self) -> None:
        self._away.close()
        self._all.close()


STORES: dict[str, Callable[[Path, int], Away]] = {
    "postgres": OwnPostgres,
    CHOICE.kind: OwnInfluxd if CHOICE.found else OwnImitation,
}


class Process:
    """A service that can be killed and started again."""

    def __init__(self, service: str, port: int, environ: dict[str, str]) -> None:
        self._of, self._port = SERVICES[service], port
        self._environ = {"PATH": os.environ["PATH"], "JWT_SECRET": SECRET, "LOG_LEVEL": "ERROR", **environ}
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "heartguard.serve", self._of.name, "--port", str(self._port)]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, cwd=ROOT, env=self._environ, stdout=quiet, stderr=quiet)
        wait_until(lambda: is_ready(self._of, self._port), 30)

    def kill(self) -> None:
        if self._process.poll() is None:
            kill(self._process.pid)
        self._process.wait(10)


@dataclass
class Site:
    """A gateway, the time-series service behind it and its store."""

    gateway: str
    service: Process
    store: Away
    org_id: int = field(default_factory=lambda: 420_000_000 + time.time_ns() % 10_000_000)

    @property
    def bucket(self) -> str:
        return f"org_{self.org_id}_telegraf"

    def target(self, role: str = "admin", **changes: str) -> Target:
        token = TOKENS.issue(sub="7", role=role, org_id=self.org_id, sid="s", typ="access", seconds=900)[0]
        found = Target(f"{self.gateway}/timeseries", token, str(self.org_id), self.bucket)
        return Target(**{"url": found.url, "token": token, "org": found.org, "bucket": found.bucket, **changes})

    def ask(self, path: str, body: dict[str, Any]) -> urllib3.BaseHTTPResponse:
        headers = {"Authorization": f"Bearer {self.target().token}"}
        return urllib3.request("POST", self.gateway + path, json=body, headers=headers, timeout=30, retries=False)

    def values(self, measurement: str) -> list[tuple[str, Any]] | None:
        """Every value of a field ``f``, with its time; None while there is no answer."""
        asked = {"bucket": self.bucket, "measurement": measurement, "fields": ["f"], "range_start": "-9d"}
        answer = self.ask("/timeseries/query", {**asked, "range_stop": "now()", "limit": 100_000})
        if answer.status != 200:
            return None
        return [(row["time"], row["value"]) for row in answer.json()["results"]]


@contextmanager
def killed_at_end(one: Process) -> Iterator[None]:
    try:
        yield
    finally:
        one.kill()


@pytest.fixture(scope="module", params=STORES)
def site(
    request: pytest.FixtureRequest, valkey_url: str, free_port: Callable[[], int], stores_folder: Path
) -> Iterator[Site]:
    folder = private_folder(stores_folder / f"telegraf-{request.param}")
    with Redis.from_url(valkey_url) as redis:
        redis.set(REVOCATIONS_COMPLETE, redis.info("server")["run_id"])
    common = {"REDIS_URL": valkey_url, "AUDIT_SPOOL": str(folder / "spool")}
    with ExitStack() as stack:
        store = STORES[request.param](folder, free_port())
        stack.callback(store.end)
        port, gateway = free_port(), free_port()
        service = Process("timeseries", port, {**common, **store.environ})
        stack.enter_context(killed_at_end(service))
        environ = {**common, "RATE_LIMIT": "1000000/s", "TIMESERIES_URL": f"http://127.0.0.1:{port}"}
        stack.enter_context(killed_at_end(Process("gateway", gateway, environ)))
        site = Site(f"http://127.0.0.1:{gateway}", service, store)
        assert site.ask("/timeseries/buckets", {"bucket": site.bucket, "retention_seconds": 864_000}).status == 201
        yield site


BAD = {
    "_bad{n} f=1 {at}": "the measurement is a reserved name",
    "bad{n},_t=1 f=1 {at}": "the tag key '_t' is a reserved name",
    "bad{n} _f=1 {at}": "the field key '_f' is a reserved name",
    "bad{n} time=1 {at}": "the field key 'time' is a reserved name",
    "bad{n}\x07 f=1 {at}": "the measurement holds a control character",
    "bad{n}" + "n" * 300 + " f=1 {at}": "the measurement is longer than 256 characters",
    "bad{n} f=1 -5000000000000000000": "the timestamp is before 1970-01-01T00:00:00Z",
    "bad{n} f=1 9200000000000000000": "the timestamp is after",
    "bad{n} f=1 {old}": "the timestamp is older than the bucket's retention",
    "bad{n} " + ",".join(f"f{n}=1" for n in range(300)) + " {at}": "expected at most 256 fields",
    "bad{n}," + ",".join(f"t{n}=1" for n in range(70)) + " f=1 {at}": "expected measurement",
    "bad{n} f=1.5 {at}": "the field 'f' is of type integer, not float",
    'bad{n} f="text" {at}': "the field 'f' is of type integer, not string",
    "bad{n} f=t {at}": "the field 'f' is of type integer, not boolean",
}
"""Metrics that Telegraf takes and HeartGuard does not, and what is wrong with them."""
OF_EACH = 6
FIRST = re.escape("E! [outputs.influxdb_v2] failed to write")
"""How the first of the three lines begins that say of an answer what it was."""


def metrics(now: int) -> tuple[list[str], list[str], dict[int, str]]:
    """Those that give fields their types, those that are to be sent, and what is wrong with each bad one."""
    base, old = now - DAY, now - 11 * DAY
    kinds = list(BAD.items()) * OF_EACH
    typed = [f"bad{n} f=1i {base}" for n, (_, what) in enumerate(kinds) if "of type integer" in what]
    bad = [line.replace("{n}", str(n)).format(at=base + n, old=old) for n, (line, _) in enumerate(kinds)]
    good = [f'good,device=d{n % 7} f={n}.5,s="a, b" {base + n * 10**6}' for n in range(METRICS - len(bad))]
    for line in bad:
        good.insert(random.randrange(len(good)), line)
    return typed, good, {n: what for n, (_, what) in enumerate(kinds)}


def test_every_good_metric_is_stored_once_and_every_bad_one_named_in_the_log(
    site: Site, free_port: Callable[[], int], tmp_path: Path
) -> None:
    typed, lines, wrong = metrics(time.time_ns())
    assert request(site.target(), typed)[0] == 204
    with agent(tmp_path, free_port(), site.target()) as telegraf:
        third = METRICS // 3
        telegraf.send(lines[:third])
        wait_until(lambda: site.values("good"), 30)
        site.service.kill()
        site.store.kill()
        telegraf.send(lines[third : 2 * third])
        time.sleep(AWAY)
        site.store.start()
        site.service.start()
        telegraf.send(lines[2 * third :])
        wait_until(lambda: len(site.values("good") or ()) >= METRICS - len(wrong), 90)
        wait_until(lambda: not unnamed(telegraf, wrong), 30)
        log = telegraf.log()
    found = site.values("good")
    assert found is not None
    assert len(found) == len({at for at, _ in found}) == METRICS - len(wrong)
    assert sorted(value for _, value in found) == [n + 0.5 for n in range(METRICS - len(wrong))]
    assert [value for n in wrong for _, value in site.values(f"bad{n}") or ()] == [1] * len(typed), "nothing bad"
    assert "will retry in" in log, "it was away"
    dropped = [int(count) for count in re.findall(rf"{FIRST}.*unprocessable entity: ([0-9]+) of [0-9]+ points", log)]
    assert sum(dropped) == len(wrong)
    print(f"{METRICS} metrics, {len(found)} stored, {len(wrong)} named in {len(dropped)} lines; {AWAY} s away")


def unnamed(telegraf: Agent, wrong: dict[int, str]) -> list[int]:
    """Which are not in the log, with what is wrong with them."""
    log = telegraf.log()

    def is_named(n: int, what: str) -> bool:
        return re.search(rf"line [0-9]+: {re.escape(what)}[^;]*\(in '_?bad{n}(?![0-9])", log) is not None

    return [n for n, what in wrong.items() if not is_named(n, what)]


def test_the_log_says_what_else_is_wrong(site: Site, free_port: Callable[[], int], tmp_path: Path) -> None:
    lines = [f"m,user_id=8 f={n} {time.time_ns()}" for n in range(3)]
    refused = {
        "401 Unauthorized): unauthorized: The token is missing, malformed": site.target(token="none"),
        "403 Forbidden): forbidden: You may only write points of your own user_id": site.target("user"),
        "403 Forbidden): forbidden: org is not your organization": site.target(org="1"),
        "404 Not Found): not found: There is no such bucket": site.target(bucket=f"org_{site.org_id}_none"),
    }
    for number, (what, target) in enumerate(refused.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        with agent(folder, free_port(), target) as telegraf:
            telegraf.send(lines)
            wait_until(lambda telegraf=telegraf, what=what: what in telegraf.log(), 20)
    assert site.values("m") == []


def received(listener: socket.socket) -> tuple[bytes, dict[str, str], str]:
    """The request line, the headers and the unpacked body of a request, which is answered 204."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(10)
        came = b""
        while not came.endswith(b"0\r\n\r\n"):
            came += connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
    head, _, rest = came.partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return first, dict(header.decode().split(": ", 1) for header in headers), zlib.decompress(body, wbits=31).decode()


@pytest.mark.skipif(not PROGRAM, reason="no Telegraf: TELEGRAF=path")
def test_the_imitation_sends_what_telegraf_does(free_port: Callable[[], int], tmp_path: Path) -> None:
    lines = ['m,a=b f=1,s="x" 1717236000000000000', "n f=2i 1717236000000000001"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        target = Target(f"http://127.0.0.1:{listener.getsockname()[1]}/timeseries", "a.b-c", "7", "org_7")
        with agent(tmp_path, free_port(), target) as telegraf:
            telegraf.send(lines)
            real = received(listener)
        with Imitation(target).running() as imitation:
            imitation.send(lines)
            imitated = received(listener)
    for first, headers, _ in (real, imitated):
        assert first == b"POST /timeseries/api/v2/write?bucket=org_7&org=7 HTTP/1.1"
        assert headers.pop("User-Agent").startswith("Telegraf/")
        assert headers == {
            "Host": target.url.split("/")[2],
            "Transfer-Encoding": "chunked",
            "Authorization": "Token a.b-c",
            "Content-Encoding": "gzip",
            "Content-Type": "text/plain; charset=utf-8",
            "Accept-Encoding": "gzip",
        }
    assert real[2] == imitated[2] == "".join(f"{line}\n" for line in lines)
