"""With each dependency in turn away: every route answers, soon, and as before once the dependency is back."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
from typer.testing import CliRunner

from heartguard.cli.main import app
from heartguard.local.server import wait_until
from heartguard.local.stack import Stack
from heartguard.services import SERVICES
from services.influx.src import influx_http

from ..integration.media.conftest import make_bucket, service_account, start_fake_gcs
from ..integration.timeseries import faults
from ..integration.timeseries import influx as influxes
from ..integration.timeseries.faults import Proxy
from ..integration.timeseries.influx import Influx
from .absence import Answers, Client, Scene, compare, table

__all__ = ["service_account"]

Away = Callable[[], AbstractContextManager[None]]


def heartguard(*arguments: str) -> None:
    result = CliRunner().invoke(app, list(arguments), prog_name="heartguard")
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def stack(stack_settings: dict[str, str]) -> Stack:
    heartguard("up")
    return Stack()


NOTICED = 1.5
"""Seconds until the gateway's ``/ready``, which believes what it saw for one, tells of it."""


class Trial:
    """Takes dependencies of a stack away, and looks at what becomes of the routes."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._client = Client(stack.gateway)
        boss = {name: os.environ[f"BOOTSTRAP_ADMIN_{name.upper()}"] for name in ("email", "password")}
        self._admin = self._client.made("POST", "/auth/login", body=boss)["access_token"]
        self.normal = self._scene().ask_all()
        assert all(status < 500 for status in self.normal.values()), self.normal

    def _scene(self) -> Scene:
        return Scene(self._client, self._admin)

    def without(self, name: str, away: Away) -> Answers:
        """What the routes answer while it is away. Nothing else is restarted, and all is well afterwards."""
        others = self._pids(name)
        scene = self._scene()
        with away():
            time.sleep(NOTICED)
            seen = scene.ask_all()
        wait_until(lambda: all(row.well for row in self._stack.status()), f"Not ready again after {name}", 30)
        assert self._pids(name) == others
        assert self._scene().ask_all() == self.normal, f"Not as before after {name}"
        return seen

    def _pids(self, without: str) -> dict[str, int]:
        states = self._stack.supervisor.states()
        return {name: state.pid for name, state in states.items() if name != without}


def judged(trial: Trial, dependencies: dict[str, Away]) -> str:
    """The table."""
    absent = {name: trial.without(name, away) for name, away in dependencies.items()}
    seen = {(name, route): status for name, answers in absent.items() for route, status in answers.items()}
    assert {place: status for place, status in seen.items() if status == 500} == {}
    return table(trial.normal, absent, set(SERVICES))


@contextmanager
def stopped(stack: Stack, program: str) -> Iterator[None]:
    stack.supervisor._call("supervisor.stopProcess", program)
    try:
        yield
    finally:
        stack.supervisor._call("supervisor.startProcess", program)


@contextmanager
def moved_away(folder: Path) -> Iterator[None]:
    """As a disk that is not mounted."""
    elsewhere = folder.rename(folder.with_name("elsewhere"))
    try:
        yield
    finally:
        elsewhere.rename(folder)


@contextmanager
def hung(stack: Stack, name: str) -> Iterator[None]:
    """Its processes are stopped where they stand: they take connections and statements, and answer none."""
    pid = stack.supervisor.states()[name].pid
    found = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    for process in found:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in found:
            os.kill(process, signal.SIGCONT)


def test_the_local_stack_without_each_of_its_parts(stack: Stack) -> None:
    away: dict[str, Away] = {
        "postgres": lambda: stopped(stack, "stores:postgres"),
        "valkey": lambda: stopped(stack, "stores:valkey"),
        "object directory": lambda: moved_away(stack.layout.root / "media" / "objects"),
    }
    for service in SERVICES:
        away[service] = lambda service=service: stopped(stack, f"services:{service}")  # type: ignore[misc]
    trial = Trial(stack)
    compare("local", judged(trial, away))


def test_the_local_stack_with_a_store_that_hangs(stack: Stack) -> None:
    away: dict[str, Away] = {
        "postgres": lambda: hung(stack, "postgres"),
        "valkey": lambda: hung(stack, "valkey"),
    }
    compare("hung", judged(Trial(stack), away))


class Store(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...


@contextmanager
def without(store: Store) -> Iterator[None]:
    store.stop()
    try:
        yield
    finally:
        store.start()


@contextmanager
def influx_hung(proxy: Proxy) -> Iterator[None]:
    """It takes connections and questions, and answers none."""
    with proxy.fault("*", "*", faults.raw(b"")):
        time.sleep(influx_http.TRUSTED_FOR)  # who is not yet in doubt waits for as long as a query may take
        yield


class CloudStorage:
    """fake-gcs-server, which keeps its objects on the disk."""

    def __init__(self, port: int, folder: Path) -> None:
        self._port, self._folder = port, folder
        self.url = f"http://127.0.0.1:{port}"
        self.start()
        make_bucket(self.url)

    def start(self) -> None:
        self._server = start_fake_gcs(self._port, self._folder)

    def stop(self) -> None:
        self._server.kill()
        self._server.wait()

    @contextmanager
    def hung(self) -> Iterator[None]:
        self._server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._server.send_signal(signal.SIGCONT)


@pytest.fixture
def influx(short_folder: Path, free_port: Callable[[], int]) -> Iterator[Influx]:
    """One of this test's own, since the organizations of its stack have the numbers of anybody's."""
    choice = replace(influxes.choose(), given=None)
    with influxes.serving(choice, short_folder / "influxdb", free_port) as influx:
        yield influx


@pytest.fixture
def proxy(influx: Influx) -> Iterator[Proxy]:
    """Stands before it."""
    with faults.before(influx.address.url) as proxy:
        yield proxy


@pytest.fixture
def cloud_storage(free_port: Callable[[], int], tmp_path: Path) -> Iterator[CloudStorage]:
    storage = CloudStorage(free_port(), tmp_path)
    yield storage
    storage.stop()


def test_the_production_stores_away(
    stack: Stack,
    influx: Influx,
    proxy: Proxy,
    cloud_storage: CloudStorage,
    service_account: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {
        "TIMESERIES_BACKEND": "influx",
        **influx.environ(INFLUX_URL=proxy.url),
        "MEDIA_BACKEND": "gcs",
        "GOOGLE_APPLICATION_CREDENTIALS": str(service_account),
        "STORAGE_EMULATOR_HOST": cloud_storage.url,
    }
    heartguard("down")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    heartguard("up")
    away: dict[str, Away] = {
        "InfluxDB": proxy.away,
        "InfluxDB, hung": lambda: influx_hung(proxy),
        "Cloud Storage": lambda: without(cloud_storage),
        "Cloud Storage, hung": cloud_storage.hung,
    }
    compare("production", judged(Trial(Stack()), away))
