"""Load on a gateway: by ``wrk`` where it is installed, else by a generator of our own, which costs more."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

from heartguard.settings import ROOT

from .context import Broken
from .rig import OTHER_CORE, on_core

CONNECTIONS = 16
SPARE_TIME = 30
"""Seconds that the generator may take longer than it was told to."""
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class Seen:
    """What the generator saw: answers per second, and latencies in milliseconds."""

    rate: float
    p50: float
    p99: float


def generator() -> str:
    return "wrk" if shutil.which("wrk") else "a generator of its own (wrk is not installed: apt-get install wrk)"


def load(port: int, path: str, token: str, seconds: int) -> Seen:
    """Ask for ``path`` on 16 connections. Anything but good answers is :class:`Broken`."""
    return (by_wrk if shutil.which("wrk") else by_our_own)(port, path, token, seconds)


def by_wrk(port: int, path: str, token: str, seconds: int) -> Seen:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "--latency"]
    url = f"http://127.0.0.1:{port}{path}"
    return read_wrk(_run([*command, "-H", f"Authorization: Bearer {token}", url], seconds))


def read_wrk(output: str) -> Seen:
    """What ``wrk --latency`` printed. Errors in it are :class:`Broken`."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if rate is None or float(rate[1]) == 0 or "Non-2xx" in output or "Socket errors" in output:
        raise Broken(f"failed under load: {output}")
    return Seen(float(rate[1]), _percentile(output, 50), _percentile(output, 99))


def _percentile(output: str, which: int) -> float:
    found = re.search(rf"{which}%\s+([\d.]+)(us|ms|s)", output)
    assert found, output
    return float(found[1]) * UNITS[found[2]]


def by_our_own(port: int, path: str, token: str, seconds: int) -> Seen:
    command = [sys.executable, "-m", "benchmarks.generator", str(port), path, token, str(CONNECTIONS), str(seconds)]
    return Seen(**json.loads(_run(command, seconds)))


def _run(command: list[str], seconds: int) -> str:
    with on_core(OTHER_CORE):
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=seconds + SPARE_TIME, check=False
        )
    if done.returncode != 0:
        raise Broken(f"failed under load: {(done.stdout + done.stderr).strip()[-500:]}")
    return done.stdout
