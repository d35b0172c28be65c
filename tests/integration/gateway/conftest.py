"""The gateway in this process, on a real Valkey, before services that are small but really there."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import uvloop
from lxml import etree
from redis import Redis
from werkzeug.datastructures import Headers
from werkzeug.serving import WSGIRequestHandler, make_server

from heartguard.settings import ROOT, load
from heartguard.tokens import KeyRing, Tokens
from heartguard.valkey import REVOCATIONS_COMPLETE
from services.gateway.src.app import create_front
from services.gateway.src.front import Front
from services.gateway.src.request import Request
from services.gateway.src.settings import Settings

SECRET = "a secret of the tests, 32 bytes long"
ROUTES = [
    ("auth", "POST", "/auth/login", "P", {"max_body": 1024, "audit": "LOGIN"}),
    ("auth", "POST", "/auth/refresh", "P", {}),
    ("auth", "POST", "/auth/register", "P", {"optional_caller": True}),
    ("auth", "POST", "/auth/logout", "A", {"audit": "LOGOUT"}),
    ("auth", "GET", "/auth/profile", "A", {}),
    ("auth", "PUT", "/auth/password", "A", {}),
    ("auth", "DELETE", "/auth/sessions/{id}", "A", {}),
    ("auth", "POST", "/auth/token/introspect", "S", {}),
    ("auth", "GET", "/auth/health", "P", {}),
    ("auth", "GET", "/auth/ready", "I", {}),
    ("timeseries", "POST", "/timeseries/write", "A", {"max_body": 16 * 1024 * 1024}),
    ("timeseries", "POST", "/timeseries/api/v2/write", "A", {"max_body": 1024, "influx_errors": True}),
    ("timeseries", "GET", "/timeseries/buckets", "A", {}),
    ("timeseries", "POST", "/timeseries/buckets", "X", {}),
    ("timeseries", "DELETE", "/timeseries/buckets/{bucket}", "M", {}),
]

Pairs = list[tuple[str, str]]
ReplyTo = Callable[[dict[str, Any], bytes], tuple[str, list[tuple[str, str]], Iterable[bytes]]]


@dataclass
class Seen:
    """A request as a service got it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        found = [value for known, value in self.headers if known.lower() == name.lower()]
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0] if found else None


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        """Say nothing."""

    def make_environ(self) -> dict[str, Any]:
        return {**super().make_environ(), "test.headers": self.headers.items()}


@dataclass
class Service:
    """A service whose answers a test decides; it keeps what it was asked."""

    seen: list[Seen] = field(default_factory=list)
    reply: ReplyTo = lambda _environ, _body: ("200 OK", [("Content-Type", "application/json")], [b"{}"])
    active: bool = True
    """What introspection says."""
    introspected: int = 0
    url: str = ""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if environ["PATH_INFO"] == "/auth/token/introspect" and "Bearer " in environ.get("HTTP_AUTHORIZATION", ""):
            self.introspected += 1
            answer = json.dumps({"active": self.active}).encode()
            start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
            return [answer]
        self.seen.append(Seen(environ["REQUEST_METHOD"], environ["REQUEST_URI"], list(environ["test.headers"]), body))
        status, headers, chunks = self.reply(environ, body)
        if isinstance(chunks, list) and "Content-Length" not in dict(headers):
            headers = [*headers, ("Content-Length", str(sum(map(len, chunks))))]
        start_response(status, headers)
        return chunks

    @contextmanager
    def running(self, port: int = 0) -> Iterator["Service"]:
        server = make_server("127.0.0.1", port, self, threaded=True, request_handler=_Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join(5)


@contextmanager
def raw_server(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does with a connection what a test wants; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def one(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.settimeout(10)
            handle(connection)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in connections:
            connection.close()
        thread.join(5)


@contextmanager
def gateway_process(port: int, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """The gateway as it really runs, in a process of its own; begins once it listens, beside who does already."""
    others = listeners(port)
    environ = {**os.environ, "JWT_SECRET": SECRET, "GATEWAY_PORT": str(port), **variables}
    spool = tempfile.TemporaryDirectory()
    environ.setdefault("AUDIT_SPOOL", spool.name)
    command = [sys.executable, "-m", "heartguard.serve", "gateway", *arguments]
    with spool, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environ, cwd=ROOT, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 20
            while listeners(port) == others:
                assert process.poll() is None, log
                assert time.monotonic() < end
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def listeners(port: int) -> int:
    """How many sockets listen on the port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(fields[1].endswith(f":{port:04X}") and fields[3] == "0A" for fields in map(str.split, lines))


_clients = count(1)


@dataclass
class Answer:
    """What a client is answered. One that broke off is shorter than it says."""

    status_code: int
    headers: Headers
    data: bytes = b""

    @property
    def status(self) -> str:
        return f"{self.status_code} {HTTPStatus(self.status_code).phrase}"

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "")

    @property
    def mimetype(self) -> str:
        return self.content_type.partition(";")[0]

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class Line:
    """A client's connection as far as one request sees of it: hands its body over in pieces, and takes the answer."""

    PIECE = 64 * 1024
    server = ("127.0.0.1", 5000)

    def __init__(self, peer: str, body: bytes) -> None:
        self.peer = peer
        self._body = [body[start : start + self.PIECE] for start in range(0, len(body), self.PIECE)]
        self._request: Request | None = None
        self.taken: Answer | None = None

    def carry(self, request: Request) -> Request:
        self._request = request
        self.make_room()
        return request

    def make_room(self) -> None:
        assert self._request is not None
        if self._body:
            self._request.add(self._body.pop(0))
        else:
            self._request.finish()

    def hold_up(self) -> None:
        """It gives a piece at a time as it is."""

    def invite(self) -> None:
        """It waits for no invitation."""

    def answer(self, request: Request, status: int, headers: Pairs, body: bytes, length: int | None) -> None:
        length = length if request.method == "HEAD" else len(body)
        self._begin(status, headers, length)
        assert self.taken is not None
        self.taken.data = b"" if request.method == "HEAD" else body
        self.end(request)

    def begin(self, _request: Request, status: int, headers: Pairs, length: int) -> None:
        self._begin(status, headers, length)

    def _begin(self, status: int, headers: Pairs, length: int | None) -> None:
        assert self.taken is None, "answered twice"
        assert all(name == name.lower() and name != "content-length" for name, _ in headers)
        self.taken = Answer(status, Headers(headers))
        if length is not None:
            self.taken.headers["Content-Length"] = str(length)

    async def send(self, piece: bytes) -> None:
        assert self.taken is not None
        self.taken.data += piece

    def end(self, request: Request) -> None:
        request.answered = True

    def abort(self) -> None:
        """The answer stays as it is, cut short."""


class Gateway:
    """Speaks to a gateway; each has an address of its own, so that no test uses up another's tokens."""

    def __init__(self, front: Front, loop: asyncio.AbstractEventLoop) -> None:
        self.front = front
        self._loop = loop
        number = next(_clients)
        self.ip = f"198.18.{number >> 8}.{number & 255}"

    def __call__(
        self,
        method: str,
        target: str,
        token: str | None = None,
        *,
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        data: bytes | None = None,
        ip: str | None = None,
    ) -> Answer:
        """``headers`` go before those that are there unless told otherwise."""
        given = Headers(headers)
        pairs = [(name.lower(), value) for name, value in given.items()]
        if token is not None:
            pairs.append(("authorization", f"Bearer {token}"))
        if data is not None and "Content-Length" not in given and "Transfer-Encoding" not in given:
            pairs.append(("content-length", str(len(data))))
        if "Host" not in given:
            pairs.append(("host", "localhost"))
        line = Line(ip or self.ip, data or b"")
        request = line.carry(Request(line, method, target, single(pairs)))
        asyncio.run_coroutine_threadsafe(self.front.answer(request), self._loop).result(60)
        assert line.taken is not None
        return line.taken


def single(pairs: Pairs) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in pairs:
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


def tokens() -> Tokens:
    return Tokens(KeyRing.from_secret(SECRET.encode()))


_users = count(1000)


def issue(role: str = "user", *, seconds: int = 60, sid: str = "session", typ: str = "access") -> str:
    """A token for a user that no other test knows."""
    return tokens().issue(sub=str(next(_users)), role=role, org_id=1, sid=sid, typ=typ, seconds=seconds)[0]


def error_of(response: Answer) -> dict[str, str]:
    """The error, read by its content type and checked for its shape."""
    if response.mimetype == "application/xml":
        root = etree.fromstring(response.data)
        assert root.tag == "Error"
        found = {child.tag: child.text for child in root}
    else:
        assert response.mimetype == "application/json"
        document = json.loads(response.data)
        assert set(document) == {"error"}
        found = document["error"]
    assert set(found) == {"code", "message", "request_id"}
    assert found["request_id"] == response.headers["X-Request-ID"]
    return found


@dataclass
class Kit:
    """What the tests share: their fixtures cannot import this module."""

    Service: type[Service] = Service
    Gateway: type[Gateway] = Gateway
    raw_server: Callable[[Callable[[socket.socket], None]], AbstractContextManager[str]] = raw_server
    issue: Callable[..., str] = issue
    error_of: Callable[[Answer], dict[str, str]] = error_of
    tokens: Callable[[], Tokens] = tokens
    gateway_process: Callable[..., AbstractContextManager[subprocess.Popen[bytes]]] = gateway_process
    secret: str = SECRET


@pytest.fixture(scope="session")
def kit() -> Kit:
    return Kit()


@pytest.fixture
def service() -> Iterator[Service]:
    with Service().running() as running:
        yield running


@pytest.fixture(scope="session")
def routes_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("routes") / "routes.json"
    routes = [
        {"service": service, "name": path, "method": method, "path": path, "audience": audience, "max_body": 0, **more}
        for service, method, path, audience, more in ROUTES
    ]
    file.write_text(json.dumps({"routes": routes}))
    return file


@pytest.fixture
def redis(valkey_url: str) -> Iterator[Redis]:
    """Valkey, its list of revocations complete."""
    with Redis.from_url(valkey_url) as client:
        client.set(REVOCATIONS_COMPLETE, client.info("server")["run_id"])
        yield client


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread."""
    made = uvloop.new_event_loop()
    thread = threading.Thread(target=made.run_forever, daemon=True)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.call_later, 0.1, made.stop)  # closing takes a turn or two
    thread.join(5)
    made.close()


@pytest.fixture
def make(
    redis: Redis, valkey_url: str, routes_file: Path, loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> Iterator[Callable[..., Gateway]]:
    """Makes gateways from settings; without limits unless told otherwise."""
    with ExitStack() as stack:

        def gateway(**variables: str) -> Gateway:
            environ = {
                "JWT_SECRET": SECRET,
                "REDIS_URL": valkey_url,
                "AUDIT_SPOOL": str(tmp_path / "spool"),
                "RATE_LIMIT": "1000000/s",
                "AUTH_RATE_LIMIT": "1000000/s",
                **variables,
            }
            front = create_front(replace(load(Settings, environ), routes_file=routes_file))
            front.open(loop)
            stack.callback(loop.call_soon_threadsafe, front.close)
            return Gateway(front, loop)

        yield gateway


@pytest.fixture
def gateway(make: Callable[..., Gateway], service: Service) -> Gateway:
    return make(AUTH_URL=service.url, TIMESERIES_URL=service.url, ALLOWED_ORIGINS="https://portal.hg.io")
