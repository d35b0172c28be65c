"""The InfluxDB at INFLUX_URL is asked for its version before the service starts, and for its limits."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

from heartguard.listening import port_is_free
from heartguard.local.files import private_folder
from heartguard.local.influx import NAME, Influx, InfluxSettings
from heartguard.local.readiness import is_ready
from heartguard.local.server import Running, wait_until
from heartguard.services import SERVICES
from heartguard.settings import SettingsError
from services.influx.src import influx_version
from services.influx.src.influx_version import refuse_other_versions

from .callers import SECRET
from .influx_here import needs_influxd

TOKEN = "a token"
Answers = Mapping[str, tuple[int, Mapping[str, str], str]]
"""Status, headers and body by path; all else is a 404."""
V1 = {"X-Influxdb-Version": "1.8.10", "X-Influxdb-Build": "OSS"}
V2 = {"X-Influxdb-Version": "v2.9.1", "X-Influxdb-Build": "OSS"}
V3 = {"X-Influxdb-Version": "3.10.0", "X-Influxdb-Build": "Core", "cluster-uuid": "b1a7"}
LIMITED = {
    "query-concurrency": 8,
    "query-queue-size": 64,
    "query-memory-bytes": 16_777_216,
    "query-max-memory-bytes": 25_165_824,
}
UNLIMITED = {"query-concurrency": 1024, "query-queue-size": 1024, "query-memory-bytes": 0, "query-max-memory-bytes": 0}


@contextmanager
def answering(answers: Answers) -> Iterator[str]:
    """The address of a server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answers.get(self.path, (404, {}, ""))
            if self.path.startswith("/api/") and self.headers["Authorization"] != f"Token {TOKEN}":
                status, headers, body = 401, {}, "{}"
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def config(found: Mapping[str, int]) -> str:
    return json.dumps({"config": {"assets-path": "", **found}})


@contextmanager
def capture_logs() -> Iterator[list[Any]]:
    """What the module logs, however the process' logs were configured by earlier tests."""
    captured = LogCapture()
    level = structlog.make_filtering_bound_logger(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(influx_version, "log", structlog.wrap_logger(None, processors=[captured], wrapper_class=level))
        yield captured.entries


def logged(answers: Answers) -> list[Any]:
    with answering(answers) as url, capture_logs() as logs:
        refuse_other_versions(url, TOKEN)
    return logs


@pytest.mark.parametrize(
    ("answers", "version"),
    [
        ({"/ping": (204, V1, "")}, "1.8.10"),
        ({"/ping": (204, {"X-Influxdb-Version": "1.6.7~rc0"}, "")}, "1.6.7~rc0"),
        ({"/health": (200, {}, json.dumps({"name": "influxdb", "version": "1.8.10"}))}, "1.8.10"),
        ({"/ping": (200, V3, json.dumps({"version": "3.10.0"}))}, "3.10.0"),
        ({"/ping": (401, {"cluster-uuid": "b1a7"}, "")}, "3.x"),
    ],
)
def test_another_version_is_refused_by_name(answers: Answers, version: str) -> None:
    with answering(answers) as url, pytest.raises(SettingsError) as refused:
        refuse_other_versions(url, TOKEN)
    assert f"INFLUX_URL: there is InfluxDB {version}, and HeartGuard needs InfluxDB 2" in str(refused.value)
    assert TOKEN not in str(refused.value)


def test_one_that_limits_its_queries_is_taken_without_a_word() -> None:
    assert logged({"/ping": (204, V2, ""), "/api/v2/config": (200, {}, config(LIMITED))}) == []


@pytest.mark.parametrize("value", [0, 2**63 - 1])
def test_what_is_not_limited_is_named(value: int) -> None:
    found = {**LIMITED, "query-memory-bytes": value}
    (told,) = logged({"/ping": (204, V2, ""), "/api/v2/config": (200, {}, config(found))})
    assert (told["log_level"], told["missing"]) == ("warning", ["query-memory-bytes"])
    assert "docs/operations.md" in told["to_do"]
    (told,) = logged({"/ping": (204, V2, ""), "/api/v2/config": (200, {}, config(UNLIMITED))})
    assert told["missing"] == ["query-concurrency", "query-memory-bytes", "query-max-memory-bytes"]


@pytest.mark.parametrize(
    "answer", [(401, {}, "{}"), (404, {}, ""), (200, {}, "<html>"), (200, {}, "[]"), (200, {}, '{"config": 1}')]
)
def test_where_the_limits_cannot_be_seen_that_is_said(answer: tuple[int, Mapping[str, str], str]) -> None:
    (told,) = logged({"/ping": (204, V2, ""), "/api/v2/config": answer})
    assert told["log_level"] == "info"
    assert "cannot be seen" in told["limits"]


def test_one_that_does_not_say_its_version_is_taken() -> None:
    for said in ("", "not JSON", json.dumps({"version": None}), json.dumps({"version": "Cloud"})):
        (told,) = logged({"/health": (200, {}, said)})
        assert told["log_level"] == "info"


def test_one_that_is_away_or_hangs_is_no_reason_not_to_start(free_port: Callable[[], int]) -> None:
    with capture_logs() as logs:
        refuse_other_versions(f"http://127.0.0.1:{free_port()}", TOKEN)
    assert [told["log_level"] for told in logs] == ["warning"]


@pytest.fixture
def environ(url_for: Callable[[str], str], valkey_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": url_for("timeseries"),
        "REDIS_URL": valkey_url,
        "AUDIT_SPOOL": str(tmp_path / "spool"),
        "JWT_SECRET": SECRET,
        "INFLUX_TOKEN": TOKEN,
        "INFLUX_ORG": NAME,
    }


def serve(port: int) -> list[str]:
    return [sys.executable, "-m", "heartguard.serve", "timeseries", "--port", str(port)]


def test_the_service_ends_with_the_message_before_it_listens(
    environ: dict[str, str], free_port: Callable[[], int]
) -> None:
    with answering({"/ping": (204, V1, "")}) as url:
        ended = subprocess.run(
            serve(free_port()), env={**environ, "INFLUX_URL": url}, capture_output=True, text=True, timeout=60
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("INFLUX_URL: there is InfluxDB 1.8.10")
    with answering({"/ping": (204, V1, "")}) as url:  # with points in PostgreSQL it is nobody's business
        port = free_port()
        given = {**environ, "INFLUX_URL": url, "TIMESERIES_BACKEND": "postgres"}
        service = subprocess.Popen(serve(port), env=given, stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: is_ready(SERVICES["timeseries"], port), "The service was not ready", 30)
        finally:
            service.terminate()
            service.wait(20)


def test_the_service_starts_while_its_influxdb_is_away(environ: dict[str, str], free_port: Callable[[], int]) -> None:
    port = free_port()
    given = {**environ, "INFLUX_URL": f"http://127.0.0.1:{free_port()}"}
    service = subprocess.Popen(serve(port), env=given, stdout=subprocess.PIPE)
    assert service.stdout is not None
    try:
        told = json.loads(service.stdout.readline())
        assert (told["service"], told["level"]) == ("timeseries", "WARNING")
        assert "its version cannot be asked for now" in told["error"]
        wait_until(lambda: not port_is_free("127.0.0.1", port), "The service did not start", 30)
    finally:
        service.terminate()
        service.communicate(timeout=20)


@needs_influxd
def test_the_real_one_is_taken_and_its_limits_are_seen_by_its_operator(
    short_folder: Path, free_port: Callable[[], int]
) -> None:
    settings = InfluxSettings(program=os.environ.get("INFLUXD"), port=free_port())
    influx = Influx(short_folder / "influx", private_folder(short_folder / "secrets"), settings)
    running = Running(influx)
    try:
        for name, words in (("influx", "cannot be seen"), ("influx-operator", "")):
            with capture_logs() as logs:
                refuse_other_versions(influx.url, (short_folder / "secrets" / name).read_text().strip())
            assert [words in told["limits"] for told in logs] == [True] * bool(words)
    finally:
        running.stop()
