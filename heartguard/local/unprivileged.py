"""Running a program with no more rights than it needs, through util-linux's ``setpriv``.

PostgreSQL refuses to run as root, and InfluxDB has no need to. Started by root they therefore run as ``nobody``, which
owns nothing but their own folders. The folders above may be closed to it (a home directory,
the stack's data folder), and opening them would open them to every other process of ``nobody``
too. So these processes keep a single capability that lets it pass: ``CAP_DAC_READ_SEARCH``.
"""

import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path

from .errors import SetupError

# Bit numbers of linux/capability.h. Containers often withhold the first, the one that only reads.
_CAPABILITIES = {"dac_read_search": 2, "dac_override": 1}

ENVIRONMENT = ["env", "-i", "PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"]
"""The stores are started with an empty environment: the services' secrets are no business of theirs."""


@dataclass(frozen=True)
class Account:
    """Whom a program runs as, and the one capability it keeps."""

    uid: int
    gid: int
    capability: str


def account() -> Account | None:
    """Whom root runs a database as; None for an ordinary user, who runs it as himself."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise SetupError(
            "Databases do not run as root here, and this system has no user 'nobody' to run them as."
            " Start HeartGuard as an ordinary user."
        ) from None
    return Account(nobody.pw_uid, nobody.pw_gid, _capability())


def _capability(status: Path = Path("/proc/self/status")) -> str:
    held = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("CapEff:"))
    for name, bit in _CAPABILITIES.items():
        if int(held, 16) >> bit & 1:
            return name
    raise SetupError(
        "Databases do not run as root, and here root may not lend them the right to reach their own folders"
        " (neither CAP_DAC_READ_SEARCH nor CAP_DAC_OVERRIDE). Start HeartGuard as an ordinary user."
    )


def give(folder: Path, runs_as: Account | None) -> None:
    """Make the folder that account's; where there is none, it is its owner's already."""
    if runs_as:
        os.chown(folder, runs_as.uid, runs_as.gid)


def setpriv(runs_as: Account | None = None, *, when_parent_dies: str | None = None) -> list[str]:
    """The words to put before a command.

    ``when_parent_dies`` names the signal it then gets, so that nothing outlives its supervisor.
    """
    program = shutil.which("setpriv")
    if program is None:
        raise SetupError("The program 'setpriv' is missing: install the package util-linux.")
    words = [program]
    if runs_as:
        only = f"-all,+{runs_as.capability}"
        words += [f"--reuid={runs_as.uid}", f"--regid={runs_as.gid}", "--clear-groups", "--no-new-privs"]
        words += ["--securebits=+no_setuid_fixup"]  # else access(2), which PostgreSQL asks, knows no capabilities
        words += [f"--inh-caps={only}", f"--ambient-caps={only}", f"--bounding-set={only}"]
    if when_parent_dies:
        words.append(f"--pdeathsig={when_parent_dies}")
    return words if len(words) > 1 else []
