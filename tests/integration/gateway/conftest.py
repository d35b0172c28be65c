"""The gateway in this process, on a real Valkey, before services that are small but really there."""

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
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from redis import Redis
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import Client, TestResponse

from heartguard.settings import ROOT, load
from heartguard.tokens import KeyRing, Tokens
from heartguard.valkey import REVOCATIONS_COMPLETE
from services.gateway.src.app import create_app
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
    ("timeseries", "GET", "/timeseries/buckets", "A", {}),
    ("timeseries", "POST", "/timeseries/buckets", "X", {}),
    ("timeseries", "DELETE", "/timeseries/buckets/{bucket}", "M", {}),
]

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
    command = [sys.executable, "-m", "heartguard.serve", "gateway", *arguments]
    with tempfile.TemporaryFile() as log:
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


class Gateway:
    """Speaks to a gateway; each has an address of its own, so that no test uses up another's tokens."""

    def __init__(self, app: Any) -> None:
        self.app = app
        number = next(_clients)
        self.ip = f"198.18.{number >> 8}.{number & 255}"

    def __call__(self, method: str, path: str, token: str | None = None, **options: Any) -> TestResponse:
        headers = dict(options.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        base = {"REMOTE_ADDR": options.pop("ip", self.ip), **options.pop("environ_base", {})}
        return Client(self.app).open(path, method=method, headers=headers, environ_base=base, **options)


def tokens() -> Tokens:
    return Tokens(KeyRing.from_secret(SECRET.encode()))


_users = count(1000)


def issue(role: str = "user", *, seconds: int = 60, sid: str = "session", typ: str = "access") -> str:
    """A token for a user that no other test knows."""
    return tokens().issue(sub=str(next(_users)), role=role, org_id=1, sid=sid, typ=typ, seconds=seconds)[0]


def error_of(response: TestResponse) -> dict[str, str]:
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
    error_of: Callable[[TestResponse], dict[str, str]] = error_of
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


@pytest.fixture
def make(redis: Redis, valkey_url: str, routes_file: Path) -> Iterator[Callable[..., Gateway]]:
    """Makes gateways from settings; without limits unless told otherwise."""
    with ExitStack() as stack:

        def gateway(**variables: str) -> Gateway:
            environ = {
                "JWT_SECRET": SECRET,
                "REDIS_URL": valkey_url,
                "RATE_LIMIT": "1000000/s",
                "AUTH_RATE_LIMIT": "1000000/s",
                **variables,
            }
            app = create_app(replace(load(Settings, environ), routes_file=routes_file))
            for close in app.extensions["heartguard.close"]:
                stack.callback(close)
            return Gateway(app)

        yield gateway


@pytest.fixture
def gateway(make: Callable[..., Gateway], service: Service) -> Gateway:
    return make(AUTH_URL=service.url, TIMESERIES_URL=service.url, ALLOWED_ORIGINS="https://portal.hg.io")
