"""A real InfluxDB 2 of the tests' own: the ``influxd`` that ``INFLUXD`` names or ``PATH`` holds."""

import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import urllib3
from urllib3.exceptions import HTTPError

from heartguard.local import influx_program
from heartguard.local.errors import SetupError
from heartguard.local.unprivileged import ENVIRONMENT, setpriv

from ..waiting import wait_until

ORG = "heartguard"
START_SECONDS = 60
STOP_SECONDS = 30


class Unusable(Exception):
    """What is there is no InfluxDB 2."""


@dataclass(frozen=True)
class Influxd:
    """The program, and what it says of its version: ``2.9.1``."""

    path: Path
    version: str


def find() -> Influxd | None:
    """The one to use; None where there is none. Raises :class:`Unusable` for another version."""
    named = os.environ.get("INFLUXD")
    try:
        path = influx_program.find(named)
    except SetupError as problem:
        if named:
            raise Unusable(_first_sentence(problem)) from None
        return None
    try:
        influx_program.refuse_other_versions(path)
    except SetupError as problem:
        raise Unusable(_first_sentence(problem)) from None
    said = subprocess.run([path, "version"], capture_output=True, text=True, timeout=20, check=False).stdout
    match = re.match(r"InfluxDB v?(\S+)", said)
    return Influxd(Path(path), match[1] if match else "2")


def _first_sentence(problem: SetupError) -> str:
    return str(problem).partition(". ")[0]


@dataclass(frozen=True)
class Address:
    """How a server is reached, with the rights of its operator."""

    url: str
    token: str
    org: str


@contextmanager
def serving(influxd: Influxd, folder: Path, port: int) -> Iterator[Address]:
    """A new server that keeps everything in ``folder``, set up over its API. It ends with this process."""
    options = {
        "bolt-path": folder / "bolt", "sqlite-path": folder / "sqlite", "engine-path": folder / "engine",
        "http-bind-address": f"127.0.0.1:{port}", "log-level": "error",
    }  # fmt: skip
    command = [
        *ENVIRONMENT, f"HOME={folder}", *setpriv(when_parent_dies="TERM"), str(influxd.path),
        "--reporting-disabled", "--ui-disabled", *(f"--{name}={value}" for name, value in options.items()),
    ]  # fmt: skip
    address = Address(f"http://127.0.0.1:{port}", secrets.token_urlsafe(32), ORG)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_until(lambda: _is_set_up(process, folder, address), START_SECONDS)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)


def _is_set_up(process: "subprocess.Popen[bytes]", folder: Path, address: Address) -> bool:
    assert process.poll() is None, f"influxd ended at once:\n{(folder / 'log').read_text(errors='replace')[-2000:]}"
    wanted = {
        "username": "tests", "password": secrets.token_urlsafe(16), "org": address.org, "bucket": "first",
        "token": address.token,
    }  # fmt: skip
    with urllib3.PoolManager() as pool:
        try:
            answer = pool.request("POST", f"{address.url}/api/v2/setup", json=wanted, retries=False, timeout=20)
        except HTTPError:
            return False
        assert answer.status in (201, 503), answer.data
        return answer.status == 201
