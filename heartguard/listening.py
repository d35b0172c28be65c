"""Where a service listens, and with how many workers and threads."""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from .roles import FOREIGN, ROLES
from .services import Service
from .settings import SettingsError, integer, load, variable

BACKLOG = 1024
"""How many connections may wait to be taken in."""
CONNECTIONS = 8192
"""How many a worker may have open. Idle ones count, so there must be room for every client that keeps one."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How a service is served."""

    workers: int = variable("WORKERS", integer(1, 64), "1")
    threads: int = variable("THREADS", integer(1, 64), "4")
    port: int = variable("PORT", integer(1, 65_535))


S = TypeVar("S")
PER_SERVICE = ("WORKERS", "THREADS", "LOG_LEVEL", "DATABASE_URL")
DATABASE = ("DATABASE_URL", "DATABASE_URL_FILE")


def own_settings(service: Service, environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` as that service sees it, where ``AUTH_WORKERS`` goes before ``WORKERS`` and so on.

    It sees no way into the database but its own.
    """
    own = {name: value for name in PER_SERVICE if (value := environ.get(_own_name(service, name)))}
    given = {name: environ.get(_own_name(service, name), "") for name in DATABASE}
    if any(given.values()) or service.name not in ROLES:
        own |= given  # even where it is empty: it must not be read from elsewhere
    return {**{name: value for name, value in environ.items() if not FOREIGN.match(name)}, **own}


def load_own(settings: type[S], service: Service, environ: Mapping[str, str]) -> S:
    """Read ``settings`` as that service sees them. An error names the variable that holds the value."""

    def holder(found: re.Match[str]) -> str:
        own = _own_name(service, found[0])
        return own if found[0] == "PORT" or (found[0] in PER_SERVICE and environ.get(own)) else found[0]

    try:
        return load(settings, own_settings(service, environ))
    except SettingsError as error:
        raise SettingsError(re.sub(r"(?m)(?<=^  )[A-Z_]+(?=: )", holder, str(error))) from None


def _own_name(service: Service, name: str) -> str:
    return service.port_variable.removesuffix("PORT") + name


def server_settings(service: Service, environ: Mapping[str, str]) -> ServerSettings:
    """How to serve it. Raises :class:`SettingsError`."""
    port = environ.get(service.port_variable) or str(service.port)
    threads = environ.get("THREADS") or str(service.threads)
    return load_own(ServerSettings, service, {**environ, "PORT": port, "THREADS": threads})


def port_is_free(host: str, port: int) -> bool:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError:
            return False
    return True
