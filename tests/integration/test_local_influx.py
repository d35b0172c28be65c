"""The InfluxDB of the local stack: made whole, closed to others, limited, started, crashed, refused."""

import http.client
import json
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from heartguard.local import influx_program
from heartguard.local.errors import SetupError
from heartguard.local.files import private_folder
from heartguard.local.influx import BOLT, NAME, Influx, InfluxSettings
from heartguard.local.influx_limits import of_this_machine
from heartguard.local.layout import Layout
from heartguard.local.server import Running, wait_until
from heartguard.local.supervisor import Program, Supervisor
from heartguard.settings import ROOT

from .influx_here import needs_influxd

Start = Callable[[], Running]
OTHERS = ["INFLUX_TOKEN", "JWT_SECRET", "DATABASE_URL", "BOOTSTRAP_ADMIN_PASSWORD"]


@pytest.fixture
def influx(short_folder: Path, free_port: Callable[[], int]) -> Influx:
    settings = InfluxSettings(program=os.environ.get("INFLUXD"), port=free_port())
    return Influx(short_folder / "influx", private_folder(short_folder / "secrets"), settings)


@pytest.fixture
def start(influx: Influx) -> Iterator[Start]:
    started: list[Running] = []

    def run() -> Running:
        started.append(Running(influx))
        return started[-1]

    yield run
    for running in started:
        running.stop()


def secret(influx: Influx, name: str) -> str:
    return (influx.folder.parent / "secrets" / name).read_text().strip()


def ask(
    influx: Influx, method: str, path: str, body: str | Mapping[str, Any] | None = None, *, token: str = "influx"
) -> tuple[int, str]:
    """Status and body; ``token`` is the name of the file that holds it."""
    connection = http.client.HTTPConnection("127.0.0.1", influx.port, timeout=20)
    try:
        sent = json.dumps(body) if isinstance(body, Mapping) else body
        connection.request(method, path, sent, {"Authorization": f"Token {secret(influx, token)}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def write(influx: Influx, line: str) -> None:
    assert ask(influx, "POST", f"/api/v2/write?org={NAME}&bucket={NAME}", line)[0] == 204


def read(influx: Influx) -> str:
    query = {"query": f'from(bucket: "{NAME}") |> range(start: 0) |> keep(columns: ["_value"])', "type": "flux"}
    status, rows = ask(influx, "POST", f"/api/v2/query?org={NAME}", query)
    assert status == 200
    return ",".join(row.rpartition(",")[2] for row in rows.split()[1:])


def environment_of(pid: int) -> dict[str, str]:
    words = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(word.split("=", 1) for word in words if word)


def pids_in(folder: Path) -> list[int]:
    """Processes that work there, as every influxd of ours does."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(int(process.name))
        except OSError:
            continue
    return found


@needs_influxd
def test_what_was_acknowledged_survives_a_crash_and_a_restart(influx: Influx, start: Start) -> None:
    first = start()
    write(influx, "m v=42 1")
    first.kill()
    assert influx.is_unused()
    second = start()
    assert not influx.is_unused()
    assert read(influx) == "42"
    second.stop()
    assert influx.is_unused()
    assert not influx.answers()
    start()
    assert read(influx) == "42"


@needs_influxd
def test_the_services_token_may_use_the_buckets_and_nothing_else(influx: Influx, start: Start) -> None:
    start()
    organization = json.loads(ask(influx, "GET", f"/api/v2/orgs?org={NAME}")[1])["orgs"][0]["id"]
    status, made = ask(influx, "POST", "/api/v2/buckets", {"orgID": organization, "name": "org_1"})
    assert status == 201
    assert ask(influx, "DELETE", f"/api/v2/buckets/{json.loads(made)['id']}")[0] == 204
    rights = [{"action": "read", "resource": {"type": "users"}}]
    for method, path, body in (
        ("POST", "/api/v2/authorizations", {"orgID": organization, "permissions": rights}),
        ("POST", "/api/v2/users", {"name": "other"}),
        ("POST", "/api/v2/orgs", {"name": "other"}),
        ("DELETE", f"/api/v2/orgs/{organization}", None),
        ("GET", "/api/v2/config", None),
    ):
        assert ask(influx, method, path, body)[0] in (401, 403), path
    assert ask(influx, "POST", "/api/v2/setup", {"username": "a", "org": "a", "bucket": "a"})[0] == 422


@needs_influxd
def test_the_folders_and_the_port_are_closed_and_those_above_untouched(influx: Influx, start: Start) -> None:
    above = influx.folder.parent
    above.chmod(0o700)
    start()
    for folder in (above, influx.folder, influx.data):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (above / "secrets").iterdir()} == {0o600}
    listening = [
        row.split()[1] for file in ("tcp", "tcp6") for row in Path(f"/proc/net/{file}").read_text().splitlines()[1:]
        if row.split()[3] == "0A"
    ]  # fmt: skip
    assert [address for address in listening if address.endswith(f":{influx.port:04X}")] == [
        f"0100007F:{influx.port:04X}"
    ]


@needs_influxd
def test_it_sees_no_secrets_and_is_no_more_than_it_has_to_be(
    influx: Influx, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in OTHERS:
        monkeypatch.setenv(name, "a secret of somebody else's")
    running = start()
    seen = environment_of(running.pid)
    assert not set(OTHERS) & set(seen)
    command = Path(f"/proc/{running.pid}/cmdline").read_text()
    for file in (influx.folder.parent / "secrets").iterdir():
        assert file.read_text().strip() not in str(seen) + command
    assert seen["INFLUXD_REPORTING_DISABLED"] == "true"
    limits = Path(f"/proc/{running.pid}/limits").read_text()
    soft, hard = next(line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files"))
    assert soft == hard
    log = influx.folder.with_name("influx.log").read_text()
    assert f"influxd may open {hard} files" in log
    if os.geteuid() == 0:
        assert influx.data.stat().st_uid != 0
        assert Path(f"/proc/{running.pid}").stat().st_uid != 0


@needs_influxd
def test_queries_are_limited_as_fits_the_machine(influx: Influx, start: Start) -> None:
    start()
    config = json.loads(ask(influx, "GET", "/api/v2/config", token="influx-operator")[1])["config"]
    for name, value in of_this_machine().items():
        if name.startswith("INFLUXD_"):
            assert config[name.removeprefix("INFLUXD_").lower().replace("_", "-")] == int(value)
    for name in ("reporting-disabled", "hardening-enabled", "no-tasks"):
        assert config[name] is True


class BreaksOff(Influx):
    """Its set-up ends half-way: InfluxDB has its user, and HeartGuard no token."""

    def _set_up(self, port: int) -> None:
        token = self._token_file.read_text() if self._token_file.exists() else None
        super()._set_up(port)
        assert self._token_file.read_text() != token
        raise OSError("the plug was pulled")


@needs_influxd
def test_a_set_up_that_was_broken_off_is_finished_at_the_next_start(influx: Influx, start: Start) -> None:
    settings = InfluxSettings(program=os.environ.get("INFLUXD"), port=influx.port)
    with pytest.raises(SetupError, match="the plug was pulled"):
        BreaksOff(influx.folder, influx.folder.parent / "secrets", settings).prepare()
    assert not influx.data.exists()
    assert (influx.folder / "data.new" / BOLT).exists()
    assert pids_in(influx.folder) == []
    start()
    assert not (influx.folder / "data.new").exists()
    write(influx, "m v=42 1")
    assert read(influx) == "42"


class ComesSecond(Influx):
    """Somebody else sets InfluxDB up just before."""

    def _set_up(self, port: int) -> None:
        super()._set_up(port)
        super()._set_up(port)


@needs_influxd
def test_a_set_up_by_somebody_else_is_told_and_not_kept(influx: Influx, start: Start) -> None:
    settings = InfluxSettings(program=os.environ.get("INFLUXD"), port=influx.port)
    with pytest.raises(SetupError, match="Somebody else has set up the InfluxDB"):
        ComesSecond(influx.folder, influx.folder.parent / "secrets", settings).prepare()
    assert not influx.data.exists()
    assert pids_in(influx.folder) == []
    start()


@needs_influxd
def test_nobody_elses_influxdb_is_set_up(influx: Influx) -> None:
    """Whoever has the port meanwhile is not asked anything."""
    with socket.create_server(("127.0.0.1", influx.port)) as other:
        influx.prepare()
        other.settimeout(0.1)
        with pytest.raises(TimeoutError):
            other.accept()


@needs_influxd
def test_a_lost_token_is_explained(influx: Influx, start: Start) -> None:
    start()
    (influx.folder.parent / "secrets" / "influx").write_text("another\n")
    with pytest.raises(SetupError, match="secrets/influx"):
        influx.answers()


@needs_influxd
def test_half_a_data_folder_is_refused(influx: Influx) -> None:
    private_folder(influx.folder)
    (influx.data / "engine").mkdir(parents=True)
    with pytest.raises(SetupError, match="incomplete"):
        influx.prepare()


@needs_influxd
def test_under_the_supervisor_it_comes_back_and_does_not_outlive_it(influx: Influx) -> None:
    layout = Layout(influx.folder.parent)
    layout.prepare()
    influx.prepare()
    supervisor = Supervisor(layout)
    program = Program(influx.name, "stores", influx.command(), influx.folder, influx.stop_signal)
    supervisor.launch([program], dict(os.environ))
    try:
        supervisor.start(program)
        wait_until(influx.answers, "InfluxDB did not answer", 20)
        for number in range(3):
            write(influx, f"m,n={number} v={number} {number}")
            pid = supervisor.states()["influx"].pid
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: supervisor.states()["influx"].pid not in (0, pid), "It did not come back", 20)  # type: ignore[misc]
            wait_until(influx.answers, "InfluxDB did not answer again", 20)
        assert sorted(set(read(influx)) - set(",")) == ["0", "1", "2"]
        os.kill(int((layout.root / "supervisord.pid").read_text()), signal.SIGKILL)
        wait_until(influx.is_unused, "InfluxDB lives on", 20)
    finally:
        supervisor.shut_down()
    assert pids_in(influx.folder) == []


def fake(folder: Path, script: str, name: str = "influxd") -> str:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('echo "InfluxDB v1.8.10 (git: 1.8 688e697c51fd)"', "is InfluxDB 1.x"),
        ('echo "InfluxDB v1.6.7~rc0 (git: unknown unknown)"', "is InfluxDB 1.x"),
        (
            '[ "$1" = --version ] || { echo "error: unrecognized subcommand" >&2; exit 2; }\n'
            'echo "influxdb3 InfluxDB 3 Core, 3.10.0, revision 1f683340e4"',
            "is InfluxDB 3.x",
        ),
        ("echo hello", "is no InfluxDB 2; asked for its version it says: hello"),
        ("exit 1", "says: nothing"),
        ('[ -z "$JWT_SECRET" ] || echo "InfluxDB v2.9.1"', "says: nothing"),
    ],
)
def test_another_version_is_refused_by_name(
    short_folder: Path, script: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JWT_SECRET", "a secret")
    program = fake(short_folder, script)
    influx = Influx(short_folder / "influx", short_folder, InfluxSettings(program=program, port=1))
    with pytest.raises(SetupError) as refused:
        influx.prepare()
    assert words in str(refused.value)
    assert program in str(refused.value)
    assert not influx.folder.exists()


@pytest.mark.parametrize("said", ["InfluxDB v2.9.1 (git: d4fa1941) build_date: 2026-11-24", "InfluxDB dev (git: none)"])
def test_an_influxdb_2_is_not(short_folder: Path, said: str) -> None:
    influx_program.refuse_other_versions(fake(short_folder, f'echo "{said}"'))


def test_where_there_is_none_it_is_said_how_to_get_one(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(short_folder))
    with pytest.raises(SetupError, match=r"nor an influxd\. Install InfluxDB 2 .* TIMESERIES_BACKEND=postgres"):
        influx_program.find(None)
    with pytest.raises(SetupError, match=r"INFLUXD is nothing, which is no program\. Install InfluxDB 2"):
        influx_program.find("nothing")
    fake(short_folder, "exit 0", "influxdb3")
    with pytest.raises(SetupError, match=r"only InfluxDB 3 \(.*influxdb3\)"):
        influx_program.find(None)
    assert influx_program.find(fake(short_folder, "exit 0")) == str(short_folder / "influxd")
    assert influx_program.find(None) == str(short_folder / "influxd")


def test_a_relative_path_counts_from_the_root_of_the_project(short_folder: Path) -> None:
    program = Path(fake(short_folder, "exit 0"))
    assert influx_program.find(os.path.relpath(program, ROOT)).endswith("/influxd")


def test_one_that_ends_at_once_says_why(short_folder: Path) -> None:
    script = '[ "$1" = version ] && exec echo "InfluxDB v2.0.0"\necho "the disk is on fire"\nexit 1'
    private_folder(short_folder / "secrets")
    settings = InfluxSettings(program=fake(short_folder, script), port=1)
    short_folder.chmod(0o755)
    influx = Influx(short_folder / "influx", short_folder / "secrets", settings)
    with pytest.raises(SetupError, match="the disk is on fire"):
        influx.prepare()
    assert not influx.data.exists()
