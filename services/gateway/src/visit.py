"""One request on its way through the gateway: what it is known by, and what has been found out about it."""

import time
from itertools import count
from secrets import token_hex
from wsgiref.types import WSGIEnvironment

from heartguard.context import request_id, traceparent
from heartguard.errors import Malformed
from heartguard.negotiation import Format, negotiate
from heartguard.ratelimit import Taken
from heartguard.tokens import Claims

from .addresses import Address, Addresses
from .routes import Route

_PROCESS = token_hex(8)
_next = count(1).__next__


class Visit:
    """What is known about a request. ``route`` and what stands below it are filled in on the way.

    ``target`` and ``passed`` are what the service gets to see: path with query string, headers."""

    __slots__ = (
        "address", "begun", "claims", "environ", "gateway_id", "method", "origin", "passed", "path",
        "request_id", "route", "taken", "target", "trace", "upstream_seconds",
    )  # fmt: skip

    def __init__(self, environ: WSGIEnvironment, addresses: Addresses) -> None:
        self.begun = time.perf_counter()
        self.environ = environ
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = environ["PATH_INFO"]
        self.request_id = request_id(environ.get("HTTP_X_REQUEST_ID"))
        self.gateway_id = f"{_PROCESS}-{_next():x}"
        self.trace = traceparent(environ.get("HTTP_TRACEPARENT"))
        self.origin: str | None = environ.get("HTTP_ORIGIN")
        self.address: Address = addresses.client(environ.get("REMOTE_ADDR", ""), environ.get("HTTP_X_FORWARDED_FOR"))
        self.route: Route | None = None
        self.target = ""
        self.passed: list[tuple[str, str]] | None = None
        self.claims: Claims | None = None
        self.taken: Taken | None = None
        self.upstream_seconds: float | None = None

    @property
    def authorization(self) -> str | None:
        return self.environ.get("HTTP_AUTHORIZATION")

    @property
    def format(self) -> Format:
        """The format of an error; one that cannot be given in the format asked for comes in JSON."""
        return negotiate(self.environ.get("HTTP_ACCEPT")) or Format.JSON

    def headers(self) -> list[tuple[str, str]]:
        """What the gateway says about the request in its answer."""
        headers = [("X-Request-ID", self.request_id), ("X-Gateway-Request-ID", self.gateway_id)]
        if self.taken is not None:
            headers += self.taken.headers()
        return headers

    def check_host(self) -> None:
        """Raise 400 for no ``Host``, or for two (which the web server joins with a comma)."""
        host = self.environ.get("HTTP_HOST", "")
        if "," in host or (not host and self.environ.get("SERVER_PROTOCOL") == "HTTP/1.1"):
            raise Malformed("There must be one Host header")
