"""The gateway's own pages, which Flask answers on a few threads."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from wsgiref.types import WSGIApplication, WSGIEnvironment

from .headers import VARY, Headers, merge_vary
from .visit import Visit

VISIT = "heartguard.visit"
"""The visit's key in the environ."""


class OwnPages:
    """A WSGI application, asked from an event loop. The pages take no bodies."""

    def __init__(self, flask: WSGIApplication, threads: int) -> None:
        self._flask = flask
        self._threads = ThreadPoolExecutor(threads, "pages")

    async def answer(self, visit: Visit) -> tuple[int, Headers, bytes, int | None]:
        """The application's answer, under the visit's request id, and the length that it states."""
        environ = environ_of(visit)
        status, headers, body = await asyncio.get_running_loop().run_in_executor(self._threads, self._call, environ)
        theirs = ", ".join(value for name, value in headers if name == "vary")
        kept = [pair for pair in headers if pair[0] not in {"vary", "x-request-id", "content-length"}]
        length = dict(headers).get("content-length")
        return status, [*kept, ("vary", merge_vary(VARY, theirs))], body, int(length) if length else None

    def _call(self, environ: WSGIEnvironment) -> tuple[int, Headers, bytes]:
        begun: list[tuple[str, Headers]] = []

        def start_response(status: str, headers: Headers, _exc_info: object = None) -> Callable[[bytes], object]:
            begun[:] = [(status, headers)]
            return _no_write

        body = self._flask(environ, start_response)
        try:
            content = b"".join(body)
        finally:
            if close := getattr(body, "close", None):
                close()
        (status, headers), *_ = begun
        return int(status[:3]), [(name.lower(), value) for name, value in headers], content


def _no_write(_piece: bytes) -> None:
    raise TypeError("Applications here return their answers")


def environ_of(visit: Visit) -> WSGIEnvironment:
    """The request as WSGI has it (PEP 3333), without its body: as with services, that of a ``GET`` is not looked at."""
    name, port = visit.request.server
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": visit.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": visit.path.encode().decode("latin-1"),
        "QUERY_STRING": visit.query.encode().decode("latin-1"),
        "SERVER_NAME": name,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{visit.request.version}",
        "REMOTE_ADDR": visit.peer,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        VISIT: visit,
    }
    for name, value in visit.headers.items():
        if "_" not in name and name != "transfer-encoding":
            environ["HTTP_" + name.upper().replace("-", "_")] = value
    environ["HTTP_X_REQUEST_ID"] = visit.request_id
    return environ
