"""A relay before the gateway: a test sees each exchange before its client does, holds it back or changes it."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import urllib3

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class Passing:
    """An exchange on its way back to the client."""

    method: str
    path: str
    status: int
    headers: Mapping[str, str]
    body: bytes


Change = Callable[[Passing], Passing]


@contextmanager
def relay(gateway: str, change: Change) -> Iterator[str]:
    """Passes everything on to the gateway, and back what ``change`` makes of it; gives its address.

    Where the gateway does not answer, it does not either: it closes the connection.
    """
    pool = urllib3.PoolManager(timeout=60, retries=False)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: text for name, text in self.headers.items() if name.lower() not in HOP_BY_HOP}
            try:
                got = pool.request(
                    self.command, gateway + self.path, body=body or None, headers=headers, decode_content=False
                )
            except urllib3.exceptions.HTTPError:
                self.close_connection = True
                return
            passing = change(Passing(self.command, self.path, got.status, got.headers, got.data))
            with suppress(ConnectionError):  # nobody waits for it any more
                self._answer(passing)

        do_GET = do_POST = do_PUT = do_DELETE = _pass_on  # noqa: N815  (so http.server calls them)

        def _answer(self, passing: Passing) -> None:
            self.send_response_only(passing.status)
            for name, text in passing.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, text)
            if passing.status != 204:
                self.send_header("Content-Length", str(len(passing.body)))
            self.end_headers()
            self.wfile.write(passing.body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(10)
            pool.clear()


class Gate:
    """Holds back the answer to one request: a change for :func:`relay`."""

    def __init__(self, request: str, number: int = 1) -> None:
        self._request = request
        self._left = number
        self.reached = threading.Event()
        self._open = threading.Event()

    def __call__(self, passing: Passing) -> Passing:
        if f"{passing.method} {passing.path}".startswith(self._request):
            self._left -= 1
            if self._left == 0:
                self.reached.set()
                assert self._open.wait(60)
        return passing

    def open(self) -> None:
        self._open.set()


def failing_over(size: int) -> Change:
    """A change by which answers to queries of more than ``size`` bytes are failures of the service."""
    body = b'{"error":{"code":"TS_500","message":"Internal error","request_id":"%s"}}'

    def change(passing: Passing) -> Passing:
        if passing.path != "/timeseries/query" or len(passing.body) <= size:
            return passing
        headers = {**passing.headers, "Content-Type": "application/json"}
        return Passing(passing.method, passing.path, 500, headers, body % passing.headers["X-Request-ID"].encode())

    return change
