"""The gateway's face to the web server: clients are waited for here, work is done on threads.

granian calls :class:`Front` on an event loop (its RSGI interface). Bodies come in and answers go out
on the loop, each with a time limit, so that a client that sends or reads slowly, or not at all,
holds no thread; the WSGI application only ever sees bodies that are complete. (Behind granian's WSGI
interface four such clients, one a thread, stop everything: its reads and writes have no time limit.)
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote_to_bytes
from wsgiref.types import WSGIEnvironment

from heartguard.errors import Malformed, ServiceError, Unavailable

from .answers import Stream
from .bodies import Spool
from .proxy import BODY, REFUSED, Proxy

PATIENCE = 10.0
"""Seconds that a body may take, and then one more for each :data:`SLOWEST` bytes that have come."""
SLOWEST = 8 * 1024
SEND_TIMEOUT = 30.0
"""Seconds that a client may take to make room for the next piece of a long answer."""
WAITING = 1024
"""How many requests may be at work, or wait for a thread; the next one is told to come back."""

Headers = list[tuple[str, str]]
T = TypeVar("T")


class Scope(Protocol):
    """What granian tells of a request. ``client`` is address and port; ``path`` is as it was sent."""

    http_version: str
    server: str
    client: str
    scheme: str
    method: str
    path: str
    query_string: str
    headers: Any


class Front:
    """The gateway as an RSGI application."""

    def __init__(self, proxy: Proxy, *, threads: int, patience: float = PATIENCE) -> None:
        self._proxy = proxy
        self._threads = ThreadPoolExecutor(threads, "gateway")
        self._patience = patience
        self._at_work = 0

    async def __rsgi__(self, scope: Scope, protocol: Any) -> None:
        environ = environ_of(scope)
        if self._at_work >= WAITING:
            environ[REFUSED] = Unavailable()
            return protocol.response_bytes(*_call(self._proxy, environ))  # type: ignore[no-any-return]
        self._at_work += 1
        try:
            if environ.get("CONTENT_LENGTH") not in {None, "0"}:
                await self._receive(environ, protocol)
            status, headers, body = await self._work(lambda: _call(self._proxy, environ))
            if isinstance(body, bytes):
                protocol.response_bytes(status, headers, body)
            else:
                await self._stream(protocol.response_stream(status, headers), body)
        finally:
            self._at_work -= 1

    def _work(self, call: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def _receive(self, environ: WSGIEnvironment, protocol: Any) -> None:
        """Take the body in, if the request may have one; what is wrong with it is left to the proxy to tell."""
        stated = await self._work(lambda: self._proxy.admit(environ))
        if not stated:
            return
        spool = Spool(stated)
        begun = time.monotonic()
        try:
            pieces = aiter(protocol)
            while spool.missing:
                async with asyncio.timeout(begun + self._patience + spool.received / SLOWEST - time.monotonic()):
                    spool.add(bytes(await anext(pieces)))
            environ[BODY] = spool.body()
        except (ServiceError, TimeoutError, StopAsyncIteration, OSError) as error:
            spool.discard()
            environ[REFUSED] = _reason(error)
        except BaseException:
            spool.discard()
            raise

    async def _stream(self, transport: Any, stream: Stream) -> None:
        """Send a long answer. An error ends the connection: what has been sent cannot be taken back."""
        try:
            pieces = iter(stream)
            while (piece := await self._work(lambda: next(pieces, None))) is not None:
                async with asyncio.timeout(SEND_TIMEOUT):
                    await transport.send_bytes(piece)
        finally:
            await self._work(stream.close)


def _reason(error: BaseException) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, TimeoutError):
        return ServiceError(408, "The body did not come in time")
    return Malformed("The body ends before its stated length")


def _call(proxy: Proxy, environ: WSGIEnvironment) -> tuple[int, Headers, bytes | Stream]:
    """The application's answer: complete, or still coming."""
    begun: list[tuple[str, Headers]] = []

    def start_response(status: str, headers: Headers, _exc_info: object = None) -> Callable[[bytes], object]:
        begun[:] = [(status, headers)]
        return _no_write

    body = proxy(environ, start_response)
    (status, headers), *_ = begun
    headers = [(name.lower(), value) for name, value in headers]
    if isinstance(body, Stream):
        return int(status[:3]), headers, body
    try:
        return int(status[:3]), headers, b"".join(body)
    finally:
        if close := getattr(body, "close", None):
            close()


def _no_write(_piece: bytes) -> None:
    raise TypeError("Applications here return their answers")


def environ_of(scope: Scope) -> WSGIEnvironment:
    """The request as WSGI has it (PEP 3333). Headers that come twice are joined by a comma."""
    address, _, port = scope.client.rpartition(":")
    name, _, server_port = scope.server.rpartition(":")
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope.path).decode("latin-1") if "%" in scope.path else scope.path,
        "QUERY_STRING": scope.query_string,
        "SERVER_NAME": name,
        "SERVER_PORT": server_port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": address.strip("[]"),
        "REMOTE_PORT": port,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for header, value in _headers(scope):
        key = _KEYS.get(header) or "HTTP_" + header.upper().replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


_KEYS = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}


def _headers(scope: Scope) -> Iterator[tuple[str, str]]:
    yield from scope.headers.items()
