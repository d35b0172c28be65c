"""A proxy before an InfluxDB that does what a healthy one does not: refuse, delay, break off, hang, lie, be away.

It passes everything on, but for the requests for which a fault is set.
"""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

from .http_server import Answer, HangUp, Request, Server

JSON = "application/json; charset=utf-8"
HOP_BY_HOP = {"connection", "content-length", "host", "transfer-encoding"}

Fault = Callable[["Proxy", Request], Iterator[bytes]]
"""Gives what is sent in the place of InfluxDB's answer."""


class Proxy:
    """``asked`` holds the requests that came, in their order."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream).netloc
        self._server: Server | None = Server(self._respond)
        self._faults: dict[tuple[str, str], Fault] = {}
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self.url = self._server.url
        self.asked: list[Request] = []

    def set(self, method: str, path: str, fault: Fault | None) -> None:
        """Set a fault for requests to ``/api/v2`` + ``path`` (``*`` for any), or take it away."""
        with self._lock:
            if fault is None:
                self._faults.pop((method, path), None)
            else:
                self._faults[method, path] = fault

    @contextmanager
    def fault(self, method: str, path: str, fault: Fault) -> Iterator[None]:
        self.set(method, path, fault)
        try:
            yield
        finally:
            self.set(method, path, None)

    def of(self, path: str) -> list[Request]:
        """The requests to ``/api/v2`` + ``path`` that came."""
        return [request for request in self.asked if request.path == f"/api/v2{path}"]

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nobody listens, and no connection is left."""
        assert self._server is not None
        port = self._server.port
        self._server.stop()
        self._server = None
        try:
            yield
        finally:
            self._server = Server(self._respond, port)

    def stop(self) -> None:
        self.closing.set()
        if self._server is not None:
            self._server.stop()

    def pass_on(self, request: Request) -> Answer:
        """InfluxDB's own answer."""
        upstream = http.client.HTTPConnection(self._upstream, timeout=60)
        try:
            headers = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP}
            headers.setdefault("accept-encoding", "identity")  # else Python's client would set it
            upstream.request(request.method, request.target, request.body or None, headers)
            answer = upstream.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP}
            if answer.getheader("Transfer-Encoding"):
                kept["Transfer-Encoding"] = "chunked"
            return Answer(answer.status, kept, answer.read())
        finally:
            upstream.close()

    def _respond(self, request: Request) -> Iterator[bytes]:
        with self._lock:
            self.asked.append(request)
            fault = self._find(request)
        yield from fault(self, request) if fault else passed_on(self, request)

    def _find(self, request: Request) -> Fault | None:
        path = request.path.removeprefix("/api/v2")
        for key in ((request.method, path), (request.method, "*"), ("*", path), ("*", "*")):
            if key in self._faults:
                return self._faults[key]
        return None


@contextmanager
def before(upstream: str) -> Iterator[Proxy]:
    proxy = Proxy(upstream)
    try:
        yield proxy
    finally:
        proxy.stop()


def passed_on(proxy: Proxy, request: Request) -> Iterator[bytes]:
    yield proxy.pass_on(request).wire()


def said(status: int, body: bytes = b"", **headers: str) -> Fault:
    """An answer that is not InfluxDB's, which is not asked."""

    def fault(proxy: Proxy, request: Request) -> Iterator[bytes]:
        yield Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body).wire()

    return fault


def refused(status: int, code: str, message: str = "it broke", **headers: str) -> Fault:
    """The same in the form of InfluxDB's errors."""
    body = json.dumps({"code": code, "message": message}, ensure_ascii=False, separators=(",", ":"))
    return said(status, body.encode(), Content_Type=JSON, **headers)


def refused_where(find: Callable[[Request], tuple[int, str, str] | None]) -> Fault:
    """Refuse with status, code and message that are found for a request; pass on the others."""

    def fault(proxy: Proxy, request: Request) -> Iterator[bytes]:
        found = find(request)
        yield from refused(*found)(proxy, request) if found else passed_on(proxy, request)

    return fault


def raw(sent: bytes, *, hang: bool = True) -> Fault:
    """Some bytes instead of an answer, and then nothing; or the end of the connection."""

    def fault(proxy: Proxy, request: Request) -> Iterator[bytes]:
        yield sent
        if hang:
            proxy.closing.wait()
        raise HangUp

    return fault


def slow(seconds: float | Callable[[Request], float]) -> Fault:
    """InfluxDB's answer, held back."""

    def fault(proxy: Proxy, request: Request) -> Iterator[bytes]:
        answer = proxy.pass_on(request).wire()
        time.sleep(seconds(request) if callable(seconds) else seconds)
        yield answer

    return fault


def cut(place: Callable[[int, int], int], *, hang: bool = False) -> Fault:
    """InfluxDB's answer up to a place, and then the end of the connection, or nothing.

    ``place`` is told where the body begins, and where everything ends.
    """

    def fault(proxy: Proxy, request: Request) -> Iterator[bytes]:
        wire = proxy.pass_on(request).wire()
        yield from raw(wire[: place(wire.index(b"\r\n\r\n") + 4, len(wire))], hang=hang)(proxy, request)

    return fault


LAST_CHUNK = len(b"0\r\n\r\n")
BREAKING_OFF = {
    "in the head": cut(lambda begin, end: begin // 2),
    "after the head": cut(lambda begin, end: begin),
    "in the middle": cut(lambda begin, end: (begin + end) // 2),
    "just before the end": cut(lambda begin, end: end - LAST_CHUNK),
}


def changed(change: Callable[[bytes], bytes]) -> Fault:
    """InfluxDB's answer with another body."""

    def fault(proxy: Proxy, request: Request) -> Iterator[bytes]:
        answer = proxy.pass_on(request)
        headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-encoding"}
        yield replace(answer, headers=headers, body=change(answer.content)).wire()

    return fault


def of_length(wrong: Callable[[int], int]) -> Fault:
    """InfluxDB's answer under a wrong length; then nothing more comes."""

    def fault(proxy: Proxy, request: Request) -> Iterator[bytes]:
        answer = proxy.pass_on(request)
        headers = {name: value for name, value in answer.headers.items() if name.lower() != "transfer-encoding"}
        headers["Content-Length"] = str(wrong(len(answer.body)))
        yield from raw(replace(answer, headers=headers).wire(), hang=False)(proxy, request)

    return fault
