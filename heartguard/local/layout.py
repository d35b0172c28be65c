"""Where the stack keeps everything: ``HEARTGUARD_DATA``."""

import fcntl
import os
import pwd
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..settings import ROOT
from .errors import SetupError, explain
from .files import SOCKET_PATH_LIMIT, private_folder

LONGEST_SOCKET = "control.sock.4194304"
"""The supervisor binds its socket under a name that ends in its process id first."""
NEEDED_MB = 200
LOCK_TIMEOUT = 60.0
OURS = ("postgres", "valkey", "influx", "spool", "logs", "lock", "supervisord.conf", "supervisord.pid", "control.sock")
"""What the folder holds besides ``secrets``, without which it is of no use."""


@dataclass(frozen=True)
class Layout:
    """The data folder and what is in it. It is closed to all but its owner."""

    root: Path

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Layout":
        """The folder that ``HEARTGUARD_DATA`` names; a relative one counts from the root of the project."""
        folder = (ROOT / Path(environ.get("HEARTGUARD_DATA") or ".heartguard").expanduser()).resolve()
        if not str(folder).isprintable() or set(str(folder)) & set("'\"\\;#%"):
            raise SetupError("HEARTGUARD_DATA may not hold quotes, ;, #, %, \\ or control characters")
        return cls(folder)

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def keyring(self) -> Path:
        return self.secrets / "keyring.json"

    @property
    def spool(self) -> Path:
        """Where events of the audit trail wait while Valkey is away."""
        return self.root / "spool"

    @property
    def audit_key(self) -> Path:
        return self.secrets / "audit-signing-key"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def control(self) -> Path:
        return self.root / "control.sock"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def prepare(self) -> None:
        """Make the folder. Raises :class:`SetupError` where it cannot serve."""
        longest = self.root / LONGEST_SOCKET
        if len(os.fsencode(longest)) > SOCKET_PATH_LIMIT:
            raise SetupError(
                f"The path of HEARTGUARD_DATA is too long for the sockets in it ({self.root}): set HEARTGUARD_DATA"
                f" to one of at most {SOCKET_PATH_LIMIT - len(LONGEST_SOCKET) - 1} bytes."
            )
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_owner()
            self._check_content()
        except OSError as error:
            raise explain(error, f"making HEARTGUARD_DATA in {self.root}") from error
        for folder in (self.root, self.secrets, self.logs, self.spool):
            private_folder(folder)
        free = shutil.disk_usage(self.root).free // 2**20
        if free < NEEDED_MB:
            raise SetupError(
                f"The disk is (nearly) full: {free} MB are free for {self.root}, {NEEDED_MB} MB are needed."
                " Free some space, or set HEARTGUARD_DATA to a folder on another disk."
            )

    def _check_owner(self) -> None:
        owner = self.root.stat().st_uid
        if owner != os.geteuid():
            try:
                name = pwd.getpwuid(owner).pw_name
            except KeyError:
                name = str(owner)
            raise SetupError(
                f"{self.root} belongs to the user {name}."
                " Run as that user, or set HEARTGUARD_DATA to a folder of yours."
            )

    def _check_content(self) -> None:
        """Closing a folder that serves others too would be a nasty surprise: it must be new, empty or ours."""
        found = {path.name for path in self.root.iterdir()} - {"lost+found"}
        if not found or "secrets" in found:
            return
        cluster = self.root / "postgres" / "data"
        if cluster.exists():
            ours = [shlex.quote(str(self.root / name)) for name in OURS if name in found]
            raise SetupError(
                f"The database folder {cluster} is half-made, or cut off from its passwords: {self.secrets} is missing."
                f" Put that back as it was; or, if nothing here is needed, remove it: rm -r {' '.join(ours)}"
            )
        raise SetupError(
            f"{self.root} holds files that are not HeartGuard's ({', '.join(sorted(found)[:3])} …)."
            " Set HEARTGUARD_DATA to a new or empty folder."
        )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Only one command at a time may start or stop this stack; another waits for its end."""
        end = time.monotonic() + LOCK_TIMEOUT
        with (self.root / "lock").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise SetupError(
                            f"Another command has been starting or stopping the stack in {self.root}"
                            f" for more than {LOCK_TIMEOUT:g} seconds."
                        ) from None
                    time.sleep(0.1)
            yield
