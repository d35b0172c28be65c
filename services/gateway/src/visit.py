"""One request on its way through the gateway: what it is known by, and what has been found out about it."""

import time
from itertools import count
from secrets import token_hex

from heartguard.context import request_id, traceparent
from heartguard.errors import Malformed
from heartguard.negotiation import Format, negotiate
from heartguard.ratelimit import Taken
from heartguard.tokens import Claims, as_bearer

from .addresses import Address, Addresses
from .headers import PRECONDITIONS
from .routes import Route
from .rsgi import Headers, RequestHeaders, Scope

_PROCESS = token_hex(8)
_next = count(1).__next__


class Visit:
    """What is known about a request. ``route`` and what stands below it are filled in on the way.

    ``path`` is decoded; ``headers`` holds one value for each name, in lower case.
    """

    __slots__ = (
        "address", "begun", "claims", "gateway_id", "headers", "http_version", "method", "origin", "path", "peer",
        "query", "request_id", "route", "scheme", "taken", "trace", "upstream_seconds",
    )  # fmt: skip

    def __init__(self, scope: Scope, addresses: Addresses) -> None:
        self.begun = time.perf_counter()
        self.headers = headers = single(scope.headers.items())
        self.method = scope.method
        self.path = scope.path
        self.query = scope.query_string
        self.scheme = scope.scheme
        self.http_version = scope.http_version
        self.peer = scope.client.rpartition(":")[0].strip("[]")
        self.request_id = request_id(headers.get("x-request-id"))
        self.gateway_id = f"{_PROCESS}-{_next():x}"
        self.trace = traceparent(headers.get("traceparent"))
        self.origin = headers.get("origin")
        self.address: Address = addresses.client(self.peer, headers.get("x-forwarded-for"))
        self.route: Route | None = None
        self.claims: Claims | None = None
        self.taken: Taken | None = None
        self.upstream_seconds: float | None = None

    @property
    def authorization(self) -> str | None:
        found = self.headers.get("authorization")
        return as_bearer(found) if self.route is not None and self.route.token_scheme else found

    @property
    def format(self) -> Format:
        """The format of an error; one that cannot be given in the format asked for comes in JSON."""
        return negotiate(self.headers.get("accept")) or Format.JSON

    def told(self) -> Headers:
        """What the gateway says about the request in its answer."""
        headers = [("x-request-id", self.request_id), ("x-gateway-request-id", self.gateway_id)]
        if self.taken is not None:
            headers += self.taken.headers()
        return headers

    def check(self, headers: RequestHeaders) -> None:
        """Raise 400 for no ``Host``, or for two, and for a change whose condition the web server has kept back."""
        host = self.headers.get("host", "")
        if "," in host or (not host and self.http_version == "1.1"):
            raise Malformed("There must be one Host header")
        if self.method not in {"GET", "HEAD"} and not PRECONDITIONS.isdisjoint(
            set(headers.keys()) - self.headers.keys()
        ):
            raise Malformed("A precondition must be ASCII")


def single(pairs: Headers) -> dict[str, str]:
    """The headers by name; the values of one that comes twice are joined by a comma (RFC 9110, section 5.3)."""
    headers = dict(pairs)
    if len(headers) < len(pairs):
        headers.clear()
        for name, value in pairs:
            headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers
