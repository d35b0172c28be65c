"""The whole stack on free ports, in a folder of its own: up, killed piece by piece, down, up again."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import urllib3
from typer.testing import CliRunner

from heartguard.cli.logs import Follower
from heartguard.cli.main import app
from heartguard.local import stack as stack_module
from heartguard.local.layout import Layout
from heartguard.local.postgres import Postgres
from heartguard.local.readiness import is_ready
from heartguard.local.server import wait_until
from heartguard.local.stack import Stack
from heartguard.roles import ROLES
from heartguard.services import SERVICES
from heartguard.settings import environment

from .relay import Gate, failing_over, relay

PASSWORD = "correct horse battery staple"
PROGRAMS = ["postgres", "valkey", *SERVICES]


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it wrote."""

    exit_code: int
    output: str


def heartguard(*arguments: str) -> Said:
    result = CliRunner().invoke(app, arguments, prog_name="heartguard", terminal_width=200, env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Said(result.exit_code, result.output)


@pytest.fixture
def running(stack_settings: dict[str, str]) -> Stack:
    """The stack, up."""
    result = heartguard("up")
    assert result.exit_code == 0, result.output
    return Stack()


def sign_in(stack: Stack) -> urllib3.BaseHTTPResponse:
    body = {"email": "boss@hg.io", "password": PASSWORD}
    return urllib3.request("POST", f"{stack.gateway}/auth/login", json=body, timeout=10, retries=False)


def test_up_says_where_it_is_but_not_the_password(running: Stack) -> None:
    again = heartguard("up")
    assert again.exit_code == 0
    assert "running already" in again.output
    for words in (running.gateway, "boss@hg.io", "BOOTSTRAP_ADMIN_PASSWORD", str(running.layout.root)):
        assert words in again.output
    assert PASSWORD not in again.output
    assert sign_in(running).status == 200


def test_status_and_logs_show_what_runs(running: Stack) -> None:
    status = heartguard("status")
    assert status.exit_code == 0, status.output
    assert [line.split()[:2] for line in status.output.splitlines()[1:]] == [
        [row.name, "running"] for row in running.status()
    ]
    assert "ready to accept connections" in heartguard("logs", "postgres", "-n", "1000").output
    assert heartguard("logs", "-n", "0").output == ""
    assert "auth       | " in heartguard("logs", "-n", "5").output
    unknown = heartguard("logs", "nothing")
    assert unknown.exit_code == 1
    assert "there are: audit, auth" in unknown.output


def test_the_services_keep_what_they_compiled(running: Stack) -> None:
    """Compiling everything anew would make a restart take several times as long."""
    pid = running.supervisor.states()["auth"].pid
    environ = dict(word.split(b"=", 1) for word in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if word)
    assert b"PYTHONDONTWRITEBYTECODE" not in environ
    assert environ[b"MALLOC_ARENA_MAX"] == b"2"
    assert stack_module.supervised({"PYTHONDONTWRITEBYTECODE": "1", "MALLOC_ARENA_MAX": "8"}) == {
        "MALLOC_ARENA_MAX": "8"
    }


def test_each_service_is_given_its_own_way_into_the_database(running: Stack) -> None:
    owner = Postgres(running.layout.root / "postgres", running.layout.secrets)
    passwords = {name: owner.password(name).encode() for name in ROLES if name in SERVICES}
    powerful = [(running.layout.secrets / name).read_bytes().strip() for name in ("postgres", "postgres-superuser")]
    for name in SERVICES:
        seen = Path(f"/proc/{running.supervisor.states()[name].pid}/environ").read_bytes()
        environ = dict(word.split(b"=", 1) for word in seen.split(b"\0") if word)
        assert not any(password in seen for password in [*powerful, *passwords.values()])
        assert environ.get(b"DATABASE_URL", b"") == b""
        file = environ[b"DATABASE_URL_FILE"].decode()
        if name in passwords:
            assert Path(file).stat().st_mode & 0o777 == 0o600
            assert passwords[name] in Path(file).read_bytes()
        else:
            assert file == ""
    with psycopg.connect(owner.superuser_url) as connection:
        found = connection.execute(
            "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name ~ '^heartguard-'"
        )
        assert {str(role) for (role,) in found} == {ROLES[name] for name in passwords}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_killed_is_back_within_seconds(running: Stack, name: str) -> None:
    state = running.supervisor.states()[name]
    os.kill(state.pid, signal.SIGKILL)
    wait_until(lambda: running.supervisor.states()[name].pid not in {0, state.pid}, f"{name} was not restarted", 10)
    wait_until(lambda: all(row.well for row in running.status()), "Not everything was ready again", 20)
    assert sign_in(running).status == 200


def test_a_killed_supervisor_leaves_nothing_and_up_starts_anew(running: Stack) -> None:
    pids = [state.pid for state in running.supervisor.states().values()]
    os.kill(int((running.layout.root / "supervisord.pid").read_text()), signal.SIGKILL)
    started = heartguard("up")
    assert started.exit_code == 0, started.output
    assert "is ready" in started.output
    assert not set(pids) & {state.pid for state in Stack().supervisor.states().values()}
    assert sign_in(running).status == 200


def test_a_stopped_program_is_started_by_up(running: Stack) -> None:
    running.supervisor._call("supervisor.stopProcess", "services:auth")
    assert heartguard("status").exit_code == 3
    started = heartguard("up")
    assert "is ready" in started.output
    assert sign_in(running).status == 200


def test_other_settings_need_a_stop_first(
    running: Stack, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_PORT", str(free_port()))
    refused = heartguard("up")
    assert refused.exit_code == 1
    assert "other settings" in refused.output
    assert is_ready(SERVICES["gateway"], running.port(SERVICES["gateway"]))


def test_down_keeps_the_data_for_the_next_up(running: Stack) -> None:
    account = {"email": "kept@hg.io", "password": PASSWORD}
    url = f"{running.gateway}/auth/register"
    assert urllib3.request("POST", url, json=account, timeout=10, retries=False).status == 201
    down = heartguard("down")
    assert down.exit_code == 0, down.output
    assert str(running.layout.root) in down.output
    assert "not running" in heartguard("down").output
    status = heartguard("status")
    assert status.exit_code == 3
    assert "stopped" in status.output
    assert heartguard("up").exit_code == 0
    assert urllib3.request("POST", url, json=account, timeout=10, retries=False).status == 409
    assert heartguard("migrate").output == "The database has the newest schema.\n"


def test_logs_can_be_followed(running: Stack) -> None:
    seen = threading.Event()

    def call_until_seen() -> None:
        while not seen.wait(0.2):
            urllib3.request("GET", f"{running.gateway}/gateway/follow-me", timeout=10, retries=False)

    command = [sys.executable, "-m", "heartguard.cli.main", "logs", "gateway", "-f", "-n", "0"]
    with ThreadPoolExecutor(1) as pool, subprocess.Popen(command, stdout=subprocess.PIPE) as following:
        calls = pool.submit(call_until_seen)
        try:
            assert following.stdout is not None
            assert any(b"/gateway/follow-me" in line for line in following.stdout)
        finally:
            seen.set()
            following.terminate()
        calls.result(20)


def test_following_goes_on_over_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "auth.log"
    log.write_text("before\n")
    with Follower(log) as follower:
        with log.open("a") as file:
            file.write("one\ntw")
        assert list(follower.new_lines()) == ["one"]
        with log.open("a") as file:
            file.write("o\n")
        log.rename(tmp_path / "auth.log.1")
        assert list(follower.new_lines()) == ["two"]
        log.write_text("three\n")
        assert list(follower.new_lines()) == ["three"]


@pytest.fixture
def another(
    stack_settings: dict[str, str], monkeypatch: pytest.MonkeyPatch, short_folder: Path, free_port: Callable[[], int]
) -> Layout:
    """From here on the settings are those of another stack, one that has never been started."""
    monkeypatch.setenv("HEARTGUARD_DATA", str(short_folder))
    for service in SERVICES.values():
        monkeypatch.setenv(service.port_variable, str(free_port()))
    return Layout(short_folder)


def test_before_the_first_start_there_is_nothing(another: Layout) -> None:
    assert "not running" in heartguard("down").output
    assert "not been started" in heartguard("logs").output


def test_a_taken_port_is_named_with_its_variable(another: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        monkeypatch.setenv("AUTH_PORT", port)
        refused = heartguard("up")
    assert refused.exit_code == 1
    assert f"Port {port}" in refused.output
    assert "AUTH_PORT" in refused.output
    assert not (another.root / "postgres").exists()


def test_wrong_settings_are_named_before_anything_starts(another: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "short")
    refused = heartguard("up")
    assert refused.exit_code == 1
    assert "JWT_SECRET: should be at least 32 bytes" in refused.output
    assert not (another.root / "postgres").exists()


def test_a_half_made_database_is_named_with_what_to_remove(another: Layout) -> None:
    another.prepare()
    data = another.root / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("18\n")
    with another.lock():
        pass
    refused = heartguard("up")
    assert refused.exit_code == 1
    assert "incomplete" in refused.output
    assert f"rm -r '{data}'" in refused.output


def test_a_store_that_ends_at_once_is_shown_and_all_is_stopped(another: Layout) -> None:
    another.prepare()
    store = Postgres(another.root / "postgres", another.secrets)
    store.prepare()
    (store.data / "postgresql.conf").write_text("nonsense = 1\n")
    refused = heartguard("up")
    assert refused.exit_code == 1
    assert "postgres ended at once" in refused.output
    assert "nonsense" in refused.output
    assert not Stack().supervisor.answers()


def test_a_service_that_takes_too_long_is_shown(another: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_module, "READY_TIMEOUT", 0)
    refused = heartguard("up")
    assert refused.exit_code == 1
    assert "was not ready within 0 seconds" in refused.output
    assert not Stack().supervisor.answers()


def test_given_stores_are_used_and_not_started(
    another: Layout,
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
    valkey_url: str,
    url_for: Callable[[str], str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    for name in ("auth", "organization", "user", "media", "timeseries", "audit"):
        monkeypatch.setenv(SERVICES[name].port_variable.removesuffix("PORT") + "DATABASE_URL", url_for(name))
    (another.root.parent / f"{another.root.name}-url").write_text(valkey_url)
    monkeypatch.setenv("REDIS_URL_FILE", str(another.root.parent / f"{another.root.name}-url"))
    try:
        assert heartguard("up").exit_code == 0
        assert set(Stack().supervisor.states()) == {service.name for service in SERVICES.values()}
    finally:
        assert heartguard("down").exit_code == 0
        (another.root.parent / f"{another.root.name}-url").unlink()


def test_a_given_database_that_is_away_is_explained(another: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://somebody:secret@/nothing?host={another.root}")
    refused = heartguard("migrate")
    assert refused.exit_code == 1
    assert "could not be migrated" in refused.output
    assert "secret" not in refused.output


def test_an_unknown_service_cannot_be_run() -> None:
    refused = heartguard("run", "nothing")
    assert refused.exit_code == 1
    assert "gateway" in refused.output


@pytest.mark.parametrize("command", [["run", "gateway"], ["run", "timeseries"], ["migrate"]])
def test_without_the_stack_nothing_is_run_but_the_start_is_named(another: Layout, command: list[str]) -> None:
    refused = heartguard(*command)
    assert refused.exit_code == 1
    assert "Start the stack first: heartguard up" in refused.output
    assert list(another.root.iterdir()) == []


def test_a_service_can_be_run_beside_the_stack(running: Stack, free_port: Callable[[], int]) -> None:
    port = free_port()
    command = [sys.executable, "-m", "heartguard.cli.main", "run", "gateway", "--port", str(port)]
    second = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: is_ready(SERVICES["gateway"], port), "The second gateway was not ready", 20)
    finally:
        second.terminate()
        second.wait(20)


def ask(stack: Stack, path: str) -> Any:
    headers = {"Authorization": f"Bearer {sign_in(stack).json()['access_token']}"}
    answer = urllib3.request("GET", stack.gateway + path, headers=headers, timeout=10, retries=False)
    assert answer.status == 200, answer.data
    return answer.json()


def world(stack: Stack) -> list[Any]:
    """What the demo is to leave as it was."""
    organization = {**ask(stack, "/organization"), "updated_at": None}
    return [organization, ask(stack, "/users?limit=200"), ask(stack, "/timeseries/buckets")]


def test_the_demo_leaves_nothing_but_its_trail(running: Stack) -> None:
    before = world(running)
    for _ in range(2):
        played = heartguard("demo")
        assert played.exit_code == 0, played.output
        for words in (
            "JSON and XML say the same",
            "come back, in JSON and in XML",
            "POST /timeseries/query → 403: TS_403",
            "POST /timeseries/write → 403: TS_403",
            "GET /users → 403: GATEWAY_403",
            "PUT /organization → 412: ORG_412",
            "GET /auth/profile → 401: GATEWAY_401",
            "ROLE_CHANGE",
            "ACCESS_DENIED",
            "The chain is whole",
            "Deleted the 4 people",
        ):
            assert words in played.output
        assert PASSWORD not in played.output
        assert world(running) == before
    gone = "/audit/events?action=USER_DELETE&outcome=success"
    wait_until(lambda: len(ask(running, gone)["items"]) == 8, "The trail did not tell who was deleted", 20)


def test_the_demo_notices_a_store_that_fails_with_long_answers(running: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    before = world(running)
    monkeypatch.setenv("DEMO_PASSWORD", PASSWORD)
    with relay(running.gateway, failing_over(20_000)) as url:
        played = heartguard("demo", "--gateway", url, "--email", "boss@hg.io")
    assert played.exit_code == 1
    assert "JSON and XML say the same" in played.output  # the means are few
    assert "POST /timeseries/query → 500: TS_500" in played.output
    assert world(running) == before


def test_the_demo_can_be_kept(running: Stack) -> None:
    played = heartguard("demo", "--keep")
    assert played.exit_code == 0, played.output
    kept = re.search(r"bucket (\S+), and with the password (\S+)", played.output)
    assert kept
    assert kept[1] in [bucket["bucket"] for bucket in ask(running, "/timeseries/buckets")["buckets"]]
    emails = re.findall(r"demo-\S+@heartguard\.example", played.output)
    assert len(emails) == 4
    for email in emails:
        body = {"email": email, "password": kept[2]}
        signed_in = urllib3.request("POST", f"{running.gateway}/auth/login", json=body, timeout=10, retries=False)
        assert signed_in.status == 200


def test_a_remote_gateway_is_not_told_the_local_password(running: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = running.gateway.replace("127.0.0.1", "localhost")
    refused = heartguard("demo", "--gateway", remote)
    assert refused.exit_code == 1
    assert "with --email" in refused.output
    monkeypatch.setenv("DEMO_PASSWORD", "not the password")
    refused = heartguard("demo", "--gateway", remote, "--email", "boss@hg.io")
    assert refused.exit_code == 1
    assert "AUTH_001" in refused.output
    monkeypatch.delenv("BOOTSTRAP_ADMIN_PASSWORD")
    if not environment().get("BOOTSTRAP_ADMIN_PASSWORD"):  # a developer's .env may have one
        assert "start the stack first" in heartguard("demo").output


def test_who_is_no_admin_cannot_play_the_demo(running: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    account = {"email": "nobody@hg.io", "password": PASSWORD}
    urllib3.request("POST", f"{running.gateway}/auth/register", json=account, timeout=10, retries=False)
    monkeypatch.setenv("DEMO_PASSWORD", PASSWORD)
    refused = heartguard("demo", "--email", "nobody@hg.io")
    assert refused.exit_code == 1
    assert "nobody@hg.io is no admin" in refused.output


def test_the_demo_goes_through_any_gateway_and_waits_for_its_limits(
    running: Stack, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "heartguard.cli.main", "run", "gateway", "--port", str(port)]
    strict = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "AUTH_RATE_LIMIT": "1/s"})
    try:
        wait_until(lambda: is_ready(SERVICES["gateway"], port), "The second gateway was not ready", 20)
        monkeypatch.setenv("DEMO_PASSWORD", PASSWORD)
        played = heartguard("demo", "--gateway", f"http://127.0.0.1:{port}", "--email", "boss@hg.io")
    finally:
        strict.terminate()
        strict.wait(20)
    assert played.exit_code == 0, played.output
    assert "The gateway's limit is reached: waiting 1 s." in played.output
    assert "The chain is whole" in played.output


def play_through(url: str) -> "subprocess.Popen[bytes]":
    """The demo in a process of its own, in which Ctrl-C is ignored, as in the background of a script."""
    command = [sys.executable, "-u", "-m", "heartguard.cli.main", "demo", "--gateway", url, "--email", "boss@hg.io"]
    environ = {**os.environ, "DEMO_PASSWORD": PASSWORD, "COLUMNS": "200"}
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("request_", "number", "people"),
    [
        ("POST /timeseries/buckets", 1, 0),
        ("POST /auth/register", 2, 2),
        ("POST /timeseries/write", 2, 4),
        ("PUT /organization", 1, 4),
        ("DELETE /users/", 2, 4),
    ],
)
def test_a_demo_cut_short_leaves_nobody_behind(running: Stack, request_: str, number: int, people: int) -> None:
    """While a request is under way: it has been carried out, and the demo does not know yet."""
    before = world(running)
    gate = Gate(request_, number)
    with relay(running.gateway, gate) as url, play_through(url) as cut:
        assert cut.stdout is not None
        assert gate.reached.wait(60)
        cut.send_signal(signal.SIGINT)
        gate.open()
        rest = cut.stdout.read().decode()
        assert cut.wait(60) == (130 if request_ != "DELETE /users/" else 0)
    assert f"Deleted the {people} people" in rest
    assert world(running) == before


def test_a_demo_that_is_told_twice_breaks_off_and_says_what_may_be_there(running: Stack) -> None:
    gate = Gate("POST /auth/register", 2)
    with relay(running.gateway, gate) as url, play_through(url) as cut:
        assert cut.stdout is not None
        assert gate.reached.wait(60)
        cut.send_signal(signal.SIGINT)
        assert any(b"Ctrl-C again" in line for line in cut.stdout)
        cut.send_signal(signal.SIGINT)
        rest = cut.stdout.read().decode()
        gate.open()
        assert cut.wait(60) == 130
    left = re.search(r"Left behind: the user (demo-clinician-\S+): perhaps", rest)
    assert left
    assert left[1] in [person["email"] for person in ask(running, "/users?limit=200")["items"]]


def test_what_the_demo_cannot_delete_is_named(running: Stack) -> None:
    """The gateway is gone before the end."""
    people = {person["id"] for person in ask(running, "/users?limit=200")["items"]}
    gate = Gate("POST /timeseries/write")
    with relay(running.gateway, gate) as url, play_through(url) as cut:
        assert cut.stdout is not None
        assert gate.reached.wait(60)
        running.supervisor._call("supervisor.stopProcess", "services:gateway")
        gate.open()
        rest = cut.stdout.read().decode()
        assert cut.wait(60) == 1
    assert heartguard("up").exit_code == 0
    assert "is the stack running" in rest
    left = {person["email"] for person in ask(running, "/users?limit=200")["items"] if person["id"] not in people}
    assert set(re.findall(r"Left behind: the user (demo-\S+):", rest)) == left
    assert len(left) == 4


@pytest.mark.parametrize(
    "command", ["", "up", "down", "status", "logs", "run", "migrate", "publish", "demo", "validate"]
)
def test_every_command_explains_itself(command: str) -> None:
    shown = heartguard(*command.split(), "--help")
    assert shown.exit_code == 0
    assert not command or "Example" in shown.output


def test_an_unknown_command_is_refused() -> None:
    assert heartguard("nothing").exit_code == 2
