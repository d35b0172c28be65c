"""The InfluxDB 2 of the local stack: started from the influxd that was found, and set up over its own API.

It listens on 127.0.0.1 only. Its data comes into being whole: InfluxDB is started on a folder of another name and on a
port that nobody knows, is told its first user, organization and tokens, and is stopped; then the folder is renamed. For
until it is told, whoever comes first may make himself its master.
"""

import fcntl
import http.client
import json
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ..settings import integer, text, variable
from . import influx_limits, influx_program
from .errors import SetupError, explain
from .files import generated_secret, private_folder, write_private
from .readiness import HOST
from .server import STOP_TIMEOUT, TooSlow, tail, wait_until
from .unprivileged import ENVIRONMENT, account, give, setpriv

NAME = "heartguard"
"""Of the first user, of the organization and of its first bucket, in which nothing is stored."""
BOLT = "influxd.bolt"
SETUP_TIMEOUT = 60
ANSWER_TIMEOUT = 5.0
_LISTENING = re.compile(r"msg=Listening .*transport=http .*port=(\d+)")

SETTINGS = {
    "REPORTING_DISABLED": "true",  # nothing is sent to InfluxData
    "HARDENING_ENABLED": "true",
    "UI_DISABLED": "true",
    "PPROF_DISABLED": "true",
    "NO_TASKS": "true",
}
# Go does so by itself since InfluxDB 2.5. What it says goes into the log.
MOST_FILES = 'ulimit -n "$(ulimit -Hn)" || : && echo "influxd may open $(ulimit -n) files" && exec "$@"'


@dataclass(frozen=True, kw_only=True)
class InfluxSettings:
    """What can be set of it: the path of the program, and the port to listen on."""

    program: str | None = variable("INFLUXD", text, optional=True)
    port: int = variable("INFLUX_PORT", integer(1, 65_535), "8086")


class Influx:
    """An InfluxDB 2 in ``folder``; its password and tokens lie in ``secrets``."""

    name = "influx"
    port_variable = "INFLUX_PORT"
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path, secrets: Path, chosen: InfluxSettings) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = chosen.port
        self._secrets = secrets
        self._token_file = secrets / "influx"
        self._program = chosen.program

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        """What the time-series service needs to know besides; the token is in a file, and may do no more than it must.

        That file is there even before InfluxDB is set up, which writes another token into it.
        """
        generated_secret(self._token_file)
        _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
        return {
            "INFLUX_TOKEN": "",
            "INFLUX_TOKEN_FILE": str(self._token_file),
            "INFLUX_ORG": NAME,
            "INFLUX_MAX_FILES": "" if most_files == resource.RLIM_INFINITY else str(most_files),
        }

    def check_program(self) -> None:
        """Raises :class:`SetupError` where there is no influxd of version 2."""
        influx_program.refuse_other_versions(influx_program.find(self._program))

    def prepare(self) -> None:
        self.check_program()
        private_folder(self.folder)
        if not self.data.exists():
            give(self.folder, account())
            self._create()
        elif not (self.data / BOLT).exists():
            raise SetupError(
                f"The InfluxDB folder {self.data} is incomplete: {BOLT} is missing."
                f" Put a backup in its place; or, if it holds nothing you need, remove it: rm -r '{self.data}'"
            )

    def command(self) -> list[str]:
        """The server. It ends properly where whatever started it dies."""
        return self._command(self.data, self.port)

    def answers(self) -> bool:
        try:
            status, _ = _ask(
                self.port, "GET", "/api/v2/buckets", org=NAME, limit="1", token=generated_secret(self._token_file)
            )
        except (OSError, http.client.HTTPException):
            return False
        if status == 401:
            raise SetupError(
                f"InfluxDB refuses the token kept in {self._token_file}."
                f" Put that file back as it was when {self.data} was made."
            )
        return status == 200

    def is_unused(self) -> bool:
        """A running influxd holds a lock on one of its files."""
        try:
            with (self.data / BOLT).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return True
        except BlockingIOError:
            return False
        return True

    def _command(self, data: Path, port: int) -> list[str]:
        paths = {"BOLT_PATH": BOLT, "SQLITE_PATH": "influxd.sqlite", "ENGINE_PATH": "engine"}
        settings = {
            **SETTINGS,
            **{name: str(data / path) for name, path in paths.items()},
            "HTTP_BIND_ADDRESS": f"{HOST}:{port}",
        }
        words = [*ENVIRONMENT, f"HOME={self.folder}", *(f"INFLUXD_{name}={value}" for name, value in settings.items())]
        words += [f"{name}={value}" for name, value in influx_limits.of_this_machine().items()]
        words += [*setpriv(account(), when_parent_dies="TERM"), "sh", "-c", MOST_FILES, "sh"]
        return [*words, influx_program.find(self._program)]

    def _create(self) -> None:
        draft = self.folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        give(private_folder(draft), account())
        try:
            with self._started(draft) as port:
                self._set_up(port)
            draft.rename(self.data)
        except (OSError, http.client.HTTPException) as error:
            raise SetupError(f"Setting up InfluxDB in {self.folder} failed: {error}") from None

    @contextmanager
    def _started(self, data: Path) -> Iterator[int]:
        """An influxd of this process. The system chooses its port, which its log tells: so it is surely this one's."""
        log = self.folder / "setup.log"
        log.unlink(missing_ok=True)
        try:
            with log.open("xb") as file:
                process = subprocess.Popen(  # noqa: S603
                    self._command(data, 0), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file
                )
        except OSError as error:
            raise explain(error, "starting InfluxDB") from error
        port: list[int] = []

        def listens() -> bool:
            if process.poll() is not None:
                raise SetupError(f"Setting up InfluxDB in {self.folder} failed; it ended at once:\n{tail(log)}")
            port.extend(int(found) for found in _LISTENING.findall(log.read_text(errors="replace")))
            return bool(port)

        try:
            wait_until(listens, "InfluxDB, started to be set up, did not listen", SETUP_TIMEOUT)
            yield port[0]
        except TooSlow as error:
            raise SetupError(f"{error}:\n{tail(log)}") from None
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_TIMEOUT)
        log.unlink()

    def _set_up(self, port: int) -> None:
        """Make the user, the organization, and a token for its buckets that may do nothing else but look it up."""
        operator = generated_secret(self._secrets / "influx-operator")
        password = generated_secret(self._secrets / "influx-password")
        status, made = _ask(
            port, "POST", "/api/v2/setup",
            {"username": NAME, "password": password, "org": NAME, "bucket": NAME, "token": operator},
        )  # fmt: skip
        if status == 422 and made.get("code") == "conflict":
            raise SetupError(
                f"Somebody else has set up the InfluxDB in {self.folder} just before HeartGuard could."
                " Find out which program of this machine that was, and start again: nothing of it will be kept."
            )
        if status != 201:
            raise SetupError(f"InfluxDB in {self.folder} could not be set up: {status} {made.get('message')}")
        organization = made["org"]["id"]
        buckets, itself = {"type": "buckets", "orgID": organization}, {"type": "orgs", "id": organization}
        rights = [("read", buckets), ("write", buckets), ("read", itself)]
        wanted = {
            "orgID": organization,
            "description": "HeartGuard's time-series service",
            "permissions": [{"action": action, "resource": resource} for action, resource in rights],
        }
        status, made = _ask(port, "POST", "/api/v2/authorizations", wanted, token=operator)
        if status != 201:
            raise SetupError(f"InfluxDB in {self.folder} gave no token: {status} {made.get('message')}")
        write_private(self._token_file, made["token"] + "\n")


def _ask(
    port: int, method: str, path: str, body: Mapping[str, Any] | None = None, *, token: str = "", **asked: str
) -> tuple[int, dict[str, Any]]:
    """The status of the answer, and what it says if that is JSON."""
    connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_TIMEOUT if body is None else SETUP_TIMEOUT)
    try:
        headers = {"Authorization": f"Token {token}"} if token else {}
        sent = None if body is None else json.dumps(body)
        connection.request(method, f"{path}?{urlencode(asked)}" if asked else path, sent, headers)
        answer = connection.getresponse()
        try:
            said = json.loads(answer.read())
        except ValueError:
            said = {}
        return answer.status, said if isinstance(said, dict) else {}
    finally:
        connection.close()
