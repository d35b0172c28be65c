"""Peers are installed on demand, each into a folder of its own in the cache."""

import fcntl
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..context import Context, Unavailable

HERE = Path(__file__).parent
TIMEOUT = 600
"""Seconds."""
STAMP = "installed"
"""The file that says, in the words of the requirements (and of Python), what a folder holds. It is written last."""


def pinned(file: str, package: str) -> str:
    """The version that one of the files here pins."""
    found = re.search(rf"^\W*{re.escape(package)}\W+([\d.]+)", (HERE / file).read_text(), re.MULTILINE)
    assert found, f"{file} does not pin {package}"
    return found[1]


def into_venv(context: Context, name: str) -> Path:
    """A virtual environment with what ``<name>.txt`` pins; returns its folder."""
    wanted = HERE / f"{name}.txt"
    with filling(context, name, f"{sys.version}\n{wanted.read_text()}") as (folder, missing):
        if missing:
            _run([sys.executable, "-m", "venv", "--clear", str(folder)], folder.parent)
            pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run([*pip, "--require-hashes", "--no-deps", "--only-binary=:all:", "-r", str(wanted)], folder)
    return folder


def with_npm(context: Context, name: str) -> Path:
    """A folder with the scripts of ``<name>/`` and the packages that its package.json pins."""
    source = HERE / name
    missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    if missing:
        raise Unavailable(f"{' and '.join(missing)} not found: apt-get install nodejs npm (Node 20 or newer)")
    with filling(context, name, (source / "package.json").read_text()) as (folder, missing_packages):
        shutil.copytree(source, folder, dirs_exist_ok=True)
        if missing_packages:
            _run(["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"], folder)
    return folder


@contextmanager
def filling(context: Context, name: str, wanted: str) -> Iterator[tuple[Path, bool]]:
    """The peer's folder, and whether it has yet to be filled; others wait meanwhile."""
    folder = context.cache / name
    folder.mkdir(parents=True, exist_ok=True)
    with (context.cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / STAMP
        missing = not stamp.exists() or stamp.read_text() != wanted
        if missing:
            context.say(f"installing {name} into {folder}")
        yield folder, missing
        stamp.write_text(wanted)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise Unavailable(f"could not be installed: {problem}") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"could not be installed: {' / '.join(said[-3:])}")
