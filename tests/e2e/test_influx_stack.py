"""The whole stack with an InfluxDB of its own: up, looked at, used, killed, down, up again."""

import http.client
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import urllib3
from typer.testing import CliRunner, Result

from heartguard.cli.main import app
from heartguard.local.layout import Layout
from heartguard.local.server import wait_until
from heartguard.local.stack import Stack
from heartguard.services import SERVICES

from ..integration.influx_here import needs_influxd

PASSWORD = "correct horse battery staple"


def heartguard(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments, prog_name="heartguard", terminal_width=200, env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def influx_settings(stack_settings: dict[str, str], free_port: Callable[[], int]) -> dict[str, str]:
    """The settings of a stack that keeps points in an InfluxDB of its own; those of somebody else's do not matter."""
    changes = {"TIMESERIES_BACKEND": "influx", "INFLUX_PORT": str(free_port()), "INFLUX_TOKEN": "somebody else's"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in changes.items():
            patch.setenv(name, value)
        yield {**stack_settings, **changes}
        heartguard("down")


@pytest.fixture
def stack(influx_settings: dict[str, str]) -> Stack:
    """Up."""
    result = heartguard("up")
    assert result.exit_code == 0, result.output
    return Stack()


def call(stack: Stack, path: str, body: dict[str, Any], token: str = "") -> urllib3.BaseHTTPResponse:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return urllib3.request("POST", stack.gateway + path, json=body, headers=headers, timeout=20, retries=False)


def sign_in(stack: Stack) -> str:
    answer = call(stack, "/auth/login", {"email": "boss@hg.io", "password": PASSWORD})
    assert answer.status == 200, answer.data
    return str(answer.json()["access_token"])


def write(stack: Stack, token: str, value: float) -> None:
    point = {"measurement": "kept", "fields": {"v": value}, "timestamp": f"2024-06-01T10:00:0{value:.0f}Z"}
    assert call(stack, "/timeseries/write", {"points": [point]}, token).status == 200


def values(stack: Stack, token: str) -> list[float]:
    answer = call(stack, "/timeseries/query", {"measurement": "kept", "range_start": "2024-01-01T00:00:00Z"}, token)
    assert answer.status == 200, answer.data
    return [row["value"] for row in answer.json()["results"]]


@needs_influxd
def test_its_points_are_in_influxdb_and_survive_its_death_and_the_stacks(stack: Stack) -> None:
    token = sign_in(stack)
    write(stack, token, 1)
    killed = stack.supervisor.states()["influx"].pid
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: stack.supervisor.states()["influx"].pid not in {0, killed}, "It was not restarted", 20)
    wait_until(lambda: all(row.well for row in stack.status()), "Not everything was ready again", 30)
    assert values(stack, token) == [1]
    write(stack, token, 2)
    assert "stopped" in heartguard("down").output
    assert not stack.stores["INFLUX_URL"].answers()
    assert stack.stores["INFLUX_URL"].is_unused()
    assert heartguard("up").exit_code == 0
    assert values(stack, sign_in(stack)) == [1, 2]


@needs_influxd
def test_it_is_in_the_status_the_logs_and_the_readiness(stack: Stack, influx_settings: dict[str, str]) -> None:
    status = heartguard("status")
    assert status.exit_code == 0, status.output
    (line,) = [line.split() for line in status.output.splitlines() if line.startswith("influx ")]
    assert (line[1], line[4], line[5]) == ("running", influx_settings["INFLUX_PORT"], "yes")
    assert "may open" in "".join(file.read_text() for file in stack.layout.logs.glob("influx.log*"))
    assert "msg=Listening" in heartguard("logs", "influx", "-n", "1000").output
    connection = http.client.HTTPConnection("127.0.0.1", stack.port(SERVICES["timeseries"]), timeout=20)
    connection.request("GET", "/timeseries/ready")
    assert b'"name":"influx","status":"ok"' in connection.getresponse().read()
    connection.close()


@needs_influxd
def test_the_service_is_told_where_its_secret_is_and_not_what(stack: Stack) -> None:
    seen = Path(f"/proc/{stack.supervisor.states()['timeseries'].pid}/environ").read_bytes()
    environ = dict(word.split(b"=", 1) for word in seen.split(b"\0") if word)
    assert environ.get(b"INFLUX_TOKEN", b"") == b""
    secrets = [file.read_bytes().strip() for file in stack.layout.secrets.glob("influx*")]
    assert len(secrets) == 3
    assert Path(environ[b"INFLUX_TOKEN_FILE"].decode()).read_bytes().strip() in secrets
    configuration = (stack.layout.root / "supervisord.conf").read_bytes()
    assert not any(secret in seen + configuration for secret in secrets)


@needs_influxd
def test_the_demo_and_the_validation_pass(stack: Stack) -> None:
    for command in (["validate"], ["demo", "--gateway", stack.gateway]):
        played = CliRunner().invoke(
            app, command, prog_name="heartguard", env={"COLUMNS": "200", "GATEWAY_URL": stack.gateway}
        )
        assert played.exit_code == 0, played.output


@pytest.fixture
def another(
    influx_settings: dict[str, str], monkeypatch: pytest.MonkeyPatch, short_folder: Path, free_port: Callable[[], int]
) -> Layout:
    """From here on the settings are those of another stack, one that has never been started."""
    monkeypatch.setenv("HEARTGUARD_DATA", str(short_folder))
    for variable in ("INFLUX_PORT", *(service.port_variable for service in SERVICES.values())):
        monkeypatch.setenv(variable, str(free_port()))
    return Layout(short_folder)


@needs_influxd
def test_a_taken_port_is_named_and_whoever_has_it_is_left_alone(
    another: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.1)
        port = str(other.getsockname()[1])
        monkeypatch.setenv("INFLUX_PORT", port)
        refused = heartguard("up")
        with pytest.raises(TimeoutError):
            other.accept()
    assert refused.exit_code == 1
    assert f"Port {port}, which influx is to have, is taken" in refused.output
    assert "INFLUX_PORT" in refused.output
    assert not (another.root / "influx").exists()


def test_without_an_influxd_nothing_is_started_and_it_is_said_how_to_get_one(
    another: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLUXD", str(another.root / "nothing"))
    refused = heartguard("up")
    assert refused.exit_code == 1
    assert "Install InfluxDB 2" in refused.output
    assert "TIMESERIES_BACKEND=postgres" in refused.output
    assert not (another.root / "postgres").exists()
    assert heartguard("status").exit_code == 3


def test_a_wrong_port_is_named(another: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUX_PORT", "http")
    refused = heartguard("up")
    assert refused.exit_code == 1
    assert "INFLUX_PORT: should be a whole number" in refused.output


def test_an_influxdb_of_somebody_else_is_not_started_but_used(
    another: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "url").write_text("http://127.0.0.1:1")
    for variable, value in (("INFLUX_URL", "http://127.0.0.1:1"), ("INFLUX_URL_FILE", str(tmp_path / "url"))):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            assert "INFLUX_URL" not in Stack().stores
    assert "INFLUX_URL" in Stack().stores
    monkeypatch.setenv("TIMESERIES_BACKEND", "postgres")
    assert "INFLUX_URL" not in Stack().stores
