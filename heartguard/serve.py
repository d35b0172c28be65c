"""Run one service in this process: ``python -m heartguard.serve auth --port 5001``.

The settings are read before the server starts, so that a wrong one ends the process with its
message instead of failing in a worker, again and again.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module

from .listening import BACKLOG, CONNECTIONS, ServerSettings, load_own, own_settings, port_is_free, server_settings
from .prefork import keep_running
from .roles import PowerfulRole, refuse_powerful
from .services import SERVICES, Service
from .settings import ServiceSettings, SettingsError, environment
from .worker import load as load_in_worker

HEADER_READ_TIMEOUT_MS = 10_000
WORKERS_KILL_TIMEOUT = 10
PORT_TIMEOUT = 3.0
"""Seconds to wait for a predecessor, just killed, to let go of the port."""
ASK_TIMEOUT = 3
"""Seconds that a server may take over what is asked before the service starts."""


def serve(service: Service, *, host: str = "127.0.0.1", port: int | None = None, join: bool = False) -> None:
    """Serve until told to stop. Raises :class:`SettingsError` where that cannot begin.

    With ``join`` the port may be held already by a predecessor, which is to be stopped once this one answers.
    """
    environ = environment()
    own = load_own(import_module(f"{service.package}.settings").Settings, service, environ)
    check_servers(service, own)
    if database_url := getattr(own, "database_url", None):
        check_role(database_url)
    settings = server_settings(service, environ)
    port = port or settings.port
    if not join:
        wait_for_port(service, host, port)
    seen = own_settings(service, environ)
    os.environ.clear()
    os.environ.update(seen)  # which is all that the workers see
    if service.faces_clients:
        keep_running(settings.workers, partial(_face_clients, service, os.getpid(), host, port))
    else:
        _serve_gateway(service, settings, host, port)


def _face_clients(service: Service, parent: int, host: str, port: int) -> None:
    """A worker's work where the service has a server of its own."""
    front = load_in_worker(parent, f"{service.package}.app:create_front")
    import_module(f"{service.package}.server").run(front, host, port)


def _serve_gateway(service: Service, settings: ServerSettings, host: str, port: int) -> None:
    """Serve a WSGI application to the gateway."""
    from granian import Granian  # not above: whoever faces clients would carry it (10 MB)
    from granian.constants import HTTPModes, Interfaces, Loops
    from granian.http import HTTP1Settings
    from granian.log import LogLevels

    Granian(
        f"{service.package}.app:create_app",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        loop=Loops.asyncio,
        http=HTTPModes.http1,
        websockets=False,
        workers=settings.workers,
        blocking_threads=settings.threads,
        backlog=BACKLOG,
        backpressure=CONNECTIONS,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_READ_TIMEOUT_MS),
        log_level=LogLevels.warning,
        respawn_failed_workers=True,
        workers_kill_timeout=WORKERS_KILL_TIMEOUT,
    ).serve(target_loader=partial(load_in_worker, os.getpid()))


def check_servers(service: Service, own: ServiceSettings) -> None:
    """End with a message where a server is not of the kind that the service needs."""
    if type(own).check_servers is not ServiceSettings.check_servers:
        _ask(_ask_servers, service.name, own)


def check_role(database_url: str) -> None:
    """End with a message where the service would be let in as more than it should be.

    While PostgreSQL is away nobody can tell; then the first connection does, see
    :class:`heartguard.database.Database`.
    """
    _ask(_ask_role, database_url)


def _ask(question: Callable[..., None], *arguments: object) -> None:
    """Ask in a process of its own, for what that takes (13 MB for PostgreSQL's driver) this one needs no more.

    Ends this process where that one ends with an error; one that takes too long is not waited for.
    """
    asking = multiprocessing.get_context("fork").Process(target=question, args=arguments)
    asking.start()
    asking.join(ASK_TIMEOUT)
    if asking.is_alive():
        asking.kill()
        asking.join()
    elif asking.exitcode:
        sys.exit(asking.exitcode)


def _ask_servers(name: str, own: ServiceSettings) -> None:
    from .logs import configure

    configure(name, own.log_level)
    try:
        own.check_servers()
    except SettingsError as error:
        sys.exit(str(error))


def _ask_role(database_url: str) -> None:
    import psycopg

    try:
        with psycopg.connect(database_url, connect_timeout=ASK_TIMEOUT) as connection:
            refuse_powerful(connection)
    except psycopg.Error:
        return
    except PowerfulRole as refused:
        sys.exit(str(refused))


def wait_for_port(service: Service, host: str, port: int) -> None:
    """The server would share the port with whoever holds it already, and each would get half of the requests."""
    end = time.monotonic() + PORT_TIMEOUT
    while not port_is_free(host, port):
        if time.monotonic() > end:
            raise SettingsError(
                f"Port {port} on {host} is taken by another program."
                f" Stop that, or choose another port with {service.port_variable}."
            )
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m heartguard.serve", description="Run one service.")
    parser.add_argument("service", choices=sorted(SERVICES))
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, help="default: the service's own, e.g. AUTH_PORT")
    parser.add_argument(
        "--join", action="store_true", help="share the port with a predecessor, to be stopped once this one answers"
    )
    given = parser.parse_args()
    try:
        serve(SERVICES[given.service], host=given.host, port=given.port, join=given.join)
    except SettingsError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
