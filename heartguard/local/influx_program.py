"""Which influxd there is: found, and asked for its version. Only InfluxDB 2 will do."""

import re
import shutil
import subprocess
from pathlib import Path

from ..settings import ROOT
from .errors import SetupError
from .unprivileged import ENVIRONMENT

VERSION_TIMEOUT = 20
HOW_TO_GET_ONE = (
    "Install InfluxDB 2 (the package influxdb2, or the archive of the server, both from InfluxData) and put its influxd"
    " into PATH, or set INFLUXD to its path. Or keep points in PostgreSQL, which needs nothing else:"
    " TIMESERIES_BACKEND=postgres."
)
_MAJOR = re.compile(r"InfluxDB v?(\d+)[. ]")
_UNRELEASED = re.compile(r"InfluxDB dev \(git: ")
"""An InfluxDB 2 that somebody has built himself; of the other versions none calls itself so."""


def find(named: str | None) -> str:
    """The path of the influxd that INFLUXD names, else of the one in PATH. Raises :class:`SetupError`."""
    name = named or "influxd"
    if "/" in name or name.startswith("~"):
        name = str((ROOT / Path(name).expanduser()).absolute())
    found = shutil.which(name)
    if found:
        return found
    if named:
        raise SetupError(f"INFLUXD is {named}, which is no program. {HOW_TO_GET_ONE}")
    if other := shutil.which("influxdb3"):
        raise SetupError(
            f"There is no influxd, only InfluxDB 3 ({other}), which HeartGuard cannot use. {HOW_TO_GET_ONE}"
        )
    raise SetupError(f"TIMESERIES_BACKEND is influx, and there is neither INFLUX_URL nor an influxd. {HOW_TO_GET_ONE}")


def refuse_other_versions(program: str) -> None:
    """Raises :class:`SetupError` where the program is no InfluxDB 2."""
    said = _said(program, "version")
    if not (_MAJOR.search(said) or _UNRELEASED.search(said)):
        said = _said(program, "--version")  # which is how InfluxDB 3 tells
    if _UNRELEASED.search(said):
        return
    match = _MAJOR.search(said)
    if match is None:
        raise SetupError(
            f"{program} is no InfluxDB 2; asked for its version it says: {said.strip()[:200] or 'nothing'}"
        )
    if match[1] != "2":
        raise SetupError(
            f"{program} is InfluxDB {match[1]}.x ({said.strip()[:100]}); HeartGuard needs InfluxDB 2. {HOW_TO_GET_ONE}"
        )


def _said(program: str, question: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            [*ENVIRONMENT, program, question], capture_output=True, timeout=VERSION_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{program} cannot be asked for its version: {error}") from None
    return (done.stdout + done.stderr).decode(errors="replace")
