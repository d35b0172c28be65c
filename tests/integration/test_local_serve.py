"""One service in the foreground: served, killed, refused."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from heartguard.listening import load_own, own_settings, port_is_free, server_settings
from heartguard.local.readiness import is_ready
from heartguard.local.server import wait_until
from heartguard.serve import main
from heartguard.services import SERVICES
from heartguard.settings import ServiceSettings, SettingsError
from heartguard.worker import load

AUTH = SERVICES["auth"]


@pytest.fixture
def environ(url_for: Callable[[str], str], valkey_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": url_for("auth"),
        "REDIS_URL": valkey_url,
        "AUDIT_SPOOL": str(tmp_path / "spool"),
        "JWT_SECRET": "s" * 32,
        "BOOTSTRAP_ADMIN_PASSWORD": "correct horse battery",
    }


SERVE = ("-m", "heartguard.serve")


@contextmanager
def served(
    environ: dict[str, str], port: int, program: tuple[str, str] = SERVE, *, name: str = "auth"
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, *program, name, "--port", str(port)]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: is_served(name, port), f"{name} was not ready")
        yield process
    finally:
        process.terminate()
        process.wait(20)


def is_served(name: str, port: int) -> bool:
    """Whether it answers; the gateway is ready only with all services behind it."""
    if name != "gateway":
        return is_ready(SERVICES[name], port)
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/gateway/health", timeout=2) as answer:
        return bool(answer.status == 200)
    return False


def workers(process: subprocess.Popen[bytes]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


@pytest.mark.parametrize("name", ["auth", "gateway"])
def test_a_killed_worker_is_replaced_and_none_outlives_its_parent(
    environ: dict[str, str], free_port: Callable[[], int], name: str
) -> None:
    port = free_port()
    with served(environ, port, name=name) as process:
        (worker,) = workers(process)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: worker not in workers(process) and is_served(name, port), "The worker was not replaced", 20)
        process.kill()
        process.wait(10)
        wait_until(lambda: port_is_free("127.0.0.1", port), "An orphan holds the port", 10)


@pytest.mark.parametrize("name", ["auth", "gateway"])
@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told_to(
    environ: dict[str, str], free_port: Callable[[], int], name: str, told: signal.Signals
) -> None:
    with served({**environ, "WORKERS": "2"}, free_port(), name=name) as process:
        assert len(workers(process)) == 2
        process.send_signal(told)
        assert process.wait(20) == 0


SERVE_AND_TELL = """
import os
from pathlib import Path
from services.auth.src import app as auth
from heartguard.serve import main

create_app = auth.create_app

def create_telling_app():
    app = create_app()
    answer = app.wsgi_app
    def tell(environ, start_response):
        Path(os.environ["TOLD"]).write_text(repr(environ))
        return answer(environ, start_response)
    app.wsgi_app = tell
    return app

auth.create_app = create_telling_app
main()
"""


def test_a_request_is_not_accompanied_by_the_settings(
    environ: dict[str, str], free_port: Callable[[], int], tmp_path: Path
) -> None:
    settings = {**environ, "TOLD": str(tmp_path / "told"), "INFLUX_TOKEN": "a token of another service"}
    with served(settings, free_port(), ("-c", SERVE_AND_TELL)):
        told = (tmp_path / "told").read_text()
    assert "'PATH_INFO': '/auth/ready'" in told
    for name in ("DATABASE_URL", "REDIS_URL", "JWT_SECRET", "BOOTSTRAP_ADMIN_PASSWORD", "INFLUX_TOKEN"):
        assert name not in told
        assert settings[name] not in told


@pytest.mark.parametrize(("accept", "shape"), [("json", b'{"error":{"code":"AUTH_411",'), ("xml", b"<code>AUTH_411<")])
def test_a_body_in_chunks_is_refused(
    environ: dict[str, str], free_port: Callable[[], int], accept: str, shape: bytes
) -> None:
    port = free_port()
    request = (
        "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        f"Accept: application/{accept}\r\nConnection: close\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
    )
    with served(environ, port), socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 411 ")
    assert shape in answer


def run_main(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], *arguments: str) -> str:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["serve", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return str(ended.value)


def test_wrong_settings_end_it_before_it_begins(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    message = run_main(monkeypatch, {**environ, "JWT_SECRET": "short"}, "auth")
    assert "JWT_SECRET" in message
    assert "short\n" not in message
    assert "AUTH_THREADS" in run_main(monkeypatch, {**environ, "AUTH_THREADS": "many"}, "auth")


def test_a_taken_port_is_named(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        begun = time.monotonic()
        message = run_main(monkeypatch, environ, "auth", "--port", str(port))
        assert time.monotonic() - begun >= 3
    assert f"Port {port}" in message
    assert "AUTH_PORT" in message


def test_a_services_own_settings_go_first() -> None:
    environ = {"WORKERS": "2", "THREADS": "8", "AUTH_WORKERS": "3", "AUTH_LOG_LEVEL": "DEBUG", "AUTH_PORT": "99"}
    own = server_settings(AUTH, environ)
    assert (own.workers, own.threads, own.port) == (3, 8, 99)
    assert own_settings(AUTH, environ)["LOG_LEVEL"] == "DEBUG"
    assert server_settings(SERVICES["gateway"], environ).workers == 2


@pytest.mark.parametrize("name", ["WORKERS", "AUTH_WORKERS", "THREADS", "AUTH_THREADS", "AUTH_PORT"])
def test_a_wrong_setting_is_named_as_it_was_set(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"(?m)^  {name}: should be"):
        server_settings(AUTH, {name: "0"})


@pytest.mark.parametrize("name", ["LOG_LEVEL", "AUTH_LOG_LEVEL"])
def test_so_is_one_that_the_service_itself_reads(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"(?m)^  {name}: should be one of"):
        load_own(ServiceSettings, AUTH, {"JWT_SECRET": "s" * 32, name: "LOUD"})


def test_a_worker_loads_its_application_only_while_its_parent_lives() -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert load(os.getppid(), "collections:OrderedDict") == {}
        with pytest.raises(SystemExit):
            load(os.getpid(), "collections:OrderedDict")
    finally:  # this process is no worker
        ctypes.CDLL(None).prctl(1, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
