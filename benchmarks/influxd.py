"""The real InfluxDB 2, where there is one: as the local stack runs it, in a folder of its own."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from heartguard.local.errors import SetupError
from heartguard.local.files import generated_secret, private_folder
from heartguard.local.influx import NAME, Influx, InfluxSettings
from heartguard.local.server import Running

from .context import Unavailable
from .rig import free_port, on_core

ORG = BUCKET = NAME
"""Both are there once it runs."""


@dataclass(frozen=True)
class Influxd:
    """An InfluxDB that runs. ``token`` may do everything."""

    port: int
    pid: int
    token: str
    settings: dict[str, str]
    """How the time-series service finds it."""


def find() -> str:
    """The program that ``INFLUXD`` names, or else the one in ``PATH``. Raises :class:`Unavailable`."""
    named = os.environ.get("INFLUXD", "")
    found = shutil.which(named or "influxd")
    if found is None:
        missing = f"INFLUXD is {named}, which is no program" if named else "there is no influxd in PATH"
        raise Unavailable(f"{missing}: install InfluxDB 2, or set INFLUXD to the path of its influxd")
    return found


@contextmanager
def influxd(where: Path) -> Iterator[Influxd]:
    """It runs on all cores until the block ends. Raises :class:`Unavailable` where there is none that will do."""
    secrets = where / "secrets"
    private_folder(secrets)
    store = Influx(where / "influx", secrets, InfluxSettings(program=find(), port=free_port()))
    try:
        store.check_program()
    except SetupError as problem:
        raise Unavailable(str(problem)) from None
    with on_core(None):
        running = Running(store)
    try:
        token = generated_secret(secrets / "influx-operator")
        found = {"TIMESERIES_BACKEND": "influx", "INFLUX_URL": store.url, **store.settings}
        yield Influxd(store.port, running.pid, token, found)
    finally:
        running.stop()
