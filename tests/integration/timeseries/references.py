"""Programs of InfluxDB's makers that the tests hold the service and the small InfluxDB to.

They are fetched once into pytest's cache, by npm and apt; where that cannot be, tests that need them are skipped and
say so in the summary.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

COMPILER = "@influxdata/flux-lsp-browser"
COMPILER_VERSION = "0.8.40"
FETCHING_SECONDS = 120


def _run(command: Sequence[str], folder: Path, what: str) -> None:
    """Run a command, or skip the test."""
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=FETCHING_SECONDS)
    except (OSError, subprocess.SubprocessError) as problem:
        pytest.skip(f"{what} cannot be had ({problem})"[:200])


class FluxCompiler:
    """InfluxDB's Flux compiler in Node."""

    def __init__(self, package: Path) -> None:
        script = Path(__file__).with_name("flux_compiler.mjs")
        command = ["node", str(script), str(package)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def judge(self, query: str, extern: dict[str, Any]) -> dict[str, Any]:
        """``valid``, and the syntax trees of both (``ast``) and of the query's text; or an ``error``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"query": query, "extern": extern}) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def flux_compiler(cache: Path) -> Iterator[FluxCompiler]:
    package = cache / "node_modules" / COMPILER
    if shutil.which("node") is None:
        pytest.skip("the Flux compiler needs Node")
    if not package.exists():
        what = f"{COMPILER}@{COMPILER_VERSION}"
        _run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(cache), what], cache, "the Flux compiler")
    compiler = FluxCompiler(package)
    try:
        yield compiler
    finally:
        compiler.stop()


CONFIG = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
query-log-enabled = false
[monitor]
store-enabled = false
[http]
bind-address = "127.0.0.1:{port}"
log-enabled = false
[logging]
level = "error"
"""


class Influx1:
    """InfluxDB 1.6: the storage engine that InfluxDB 2 has too, behind another language."""

    def __init__(self, url: str) -> None:
        self._url = url

    def create(self, database: str) -> None:
        self.query(f'CREATE DATABASE "{database}"')

    def write(self, database: str, lines: bytes) -> int:
        """The status: 204, or 400 where a part or all was refused."""
        request = urllib.request.Request(f"{self._url}/write?{urlencode({'db': database})}", data=lines)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code

    def query(self, question: str, database: str = "") -> list[dict[str, Any]]:
        """The series of the answer; times are in nanoseconds."""
        data = urlencode({"q": question, "db": database, "epoch": "ns"}).encode()
        with urllib.request.urlopen(f"{self._url}/query", data=data, timeout=20) as answer:
            (result,) = json.load(answer)["results"]
        assert "error" not in result, (question, result)
        found: list[dict[str, Any]] = result.get("series", [])
        return found


def _binary(cache: Path) -> Path:
    if found := os.environ.get("HEARTGUARD_TEST_INFLUXD") or shutil.which("influxd"):
        return Path(found)
    binary = cache / "usr" / "bin" / "influxd"
    if not binary.exists():
        _run(["apt-get", "download", "influxdb"], cache, "InfluxDB 1.6")
        package = next(cache.glob("influxdb_*.deb"))
        _run(["dpkg", "-x", str(package), str(cache)], cache, "InfluxDB 1.6")
    return binary


@contextmanager
def influx1(cache: Path, folder: Path, ports: Sequence[int]) -> Iterator[Influx1]:
    """A server of its own in ``folder``."""
    port, rpc = ports
    config = folder / "influxd.conf"
    config.write_text(CONFIG.format(folder=folder, port=port, rpc=rpc))
    command = [str(_binary(cache)), "run", "-config", str(config)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={"HOME": str(folder), "PATH": os.environ["PATH"]}
        )
    try:
        _wait(process, port)
        yield Influx1(f"http://127.0.0.1:{port}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None, "InfluxDB 1.6 has ended"
            assert time.monotonic() < end, "InfluxDB 1.6 does not answer"
            time.sleep(0.05)
