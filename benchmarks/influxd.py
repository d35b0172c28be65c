"""The real InfluxDB 2: found, started in a folder of its own, set up by its API, and stopped."""

import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .context import Unavailable
from .rig import free_port, program

NAME = "bench"
"""Of the organization, of a bucket, and of the first user."""
TOKEN = "a token that opens nothing but this one"
SETUP = {"username": NAME, "password": TOKEN, "org": NAME, "bucket": NAME, "token": TOKEN}
SETUP_TIMEOUT = 30


@dataclass(frozen=True)
class Influx:
    """An InfluxDB that runs and has been set up."""

    port: int
    pid: int

    @property
    def settings(self) -> dict[str, str]:
        """How the time-series service finds it."""
        url = f"http://127.0.0.1:{self.port}"
        return {"TIMESERIES_BACKEND": "influx", "INFLUX_URL": url, "INFLUX_TOKEN": TOKEN, "INFLUX_ORG": NAME}


def find() -> str:
    """The program that ``INFLUXD`` names, or else the one in ``PATH``. Raises :class:`Unavailable`."""
    named = os.environ.get("INFLUXD", "")
    found = shutil.which(named or "influxd")
    if found is None:
        missing = f"INFLUXD is {named}, which is no program" if named else "there is no influxd in PATH"
        raise Unavailable(f"{missing}: install InfluxDB 2, or set INFLUXD to the path of its influxd")
    return found


@contextmanager
def influxd(where: Path) -> Iterator[Influx]:
    """An InfluxDB on all cores, with its own defaults but for telemetry and logs. Raises :class:`Unavailable`."""
    port, folder = free_port(), where / "influxd"
    url = f"http://127.0.0.1:{port}"
    command = [
        find(), f"--bolt-path={folder / 'bolt'}", f"--sqlite-path={folder / 'sqlite'}",
        f"--engine-path={folder / 'engine'}", f"--http-bind-address=127.0.0.1:{port}", "--reporting-disabled",
        "--log-level=error",
    ]  # fmt: skip
    folder.mkdir(mode=0o700)
    with program(command, f"{url}/health", {}, core=None, cwd=folder) as running:
        asked = urllib.request.Request(f"{url}/api/v2/setup", json.dumps(SETUP).encode(), method="POST")
        asked.add_header("Content-Type", "application/json")
        urllib.request.urlopen(asked, timeout=SETUP_TIMEOUT).close()
        yield Influx(port, running.pid)
