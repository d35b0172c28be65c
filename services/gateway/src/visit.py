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
from .headers import PRECONDITIONS, Headers
from .request import Request
from .routes import Route

_PROCESS = token_hex(8)
_next = count(1).__next__


class Visit:
    """What is known about a request. ``route`` and what stands below it are filled in on the way.

    ``path`` is decoded; ``headers`` holds one value for each name, in lower case.
    """

    __slots__ = (
        "address", "begun", "claims", "gateway_id", "headers", "method", "origin", "path", "peer", "query", "request",
        "request_id", "route", "taken", "trace", "upstream_seconds",
    )  # fmt: skip

    def __init__(self, request: Request, addresses: Addresses) -> None:
        self.begun = time.perf_counter()
        self.request = request
        self.headers = headers = request.headers
        self.method = request.method
        self.path = request.path
        self.query = request.query
        self.peer = request.peer
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

    def check(self) -> None:
        """Raise what is wrong with the request, whatever it asks for: it could not be read, has no ``Host`` or two, or
        something that cannot be read: where it comes from (not to be taken for the proxy's own), or a change's
        condition."""
        request = self.request
        if request.problem is not None:
            raise request.problem
        host = self.headers.get("host", "")
        if "," in host or (not host and request.version == "1.1"):
            raise Malformed("There must be one Host header")
        if "x-forwarded-for" in request.unreadable:
            raise Malformed("X-Forwarded-For must be ASCII")
        if request.unreadable and self.method not in {"GET", "HEAD"} and PRECONDITIONS & request.unreadable:
            raise Malformed("A precondition must be ASCII")
