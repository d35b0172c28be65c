"""Which headers pass, in both directions (section 1 of the contract)."""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache

from heartguard.errors import Malformed

Headers = list[tuple[str, str]]
"""The names are in lower case."""

CRLF = "\r\n"
_CONTROL = bytes({*range(0x20), 0x7F} - {ord("\t")})
"""What no header may hold: it could end the header and begin another."""


def written(first: str, headers: Headers) -> bytes:
    """The head of a message, with its ``first`` line. Raises ``ValueError`` where something cannot stand there."""
    lines = [first, *[f"{name}: {value}" for name, value in headers], "", ""]
    head = CRLF.join(lines).encode("ascii")
    if len(head) - len(head.translate(None, _CONTROL)) != len(CRLF) * (len(lines) - 1):
        raise ValueError("a header holds a control character")
    return head


class _Lowered(dict[bytes, str]):
    """Names in lower case. Remembered, up to bounds of number and length."""

    KEPT = 4096
    LONGEST = 64

    def __missing__(self, name: bytes) -> str:
        lowered = name.decode("ascii").lower()
        if len(self) < self.KEPT and len(name) <= self.LONGEST:
            self[name] = lowered
        return lowered


lower = _Lowered().__getitem__
"""The name of a header, as it came, in lower case."""

HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
        "te", "trailer", "transfer-encoding", "upgrade", "http2-settings",
    }
)  # fmt: skip

PRECONDITIONS = frozenset({"if-match", "if-none-match"})

_NOT_FROM_CLIENTS = re.compile(
    r"forwarded|via|host|content-length|expect|proxy|remote-user|authenticated-user|true-client-ip|cf-connecting-ip"
    r"|x-request-id|traceparent|x-(real-ip|client-ip|cluster-client-ip|original-.*|rewrite-url|http-method-override)"
    r"|x-(forwarded|gateway|user|org|organization|role|roles|tenant|account|email|auth|authenticated|identity|jwt"
    r"|remote|envoy|internal|heartguard)(-.*)?"
)
"""What would tell a service who is calling and from where: that is the gateway's to say, or nobody's."""


class _Passing(dict[str, bool]):
    """Whether a client's header of that name passes. Remembered, up to bounds of number and length.

    One with an underscore does not: servers that speak CGI or WSGI read it as a hyphen.
    """

    KEPT = 4096
    LONGEST = 64

    def __missing__(self, name: str) -> bool:
        passes = "_" not in name and name not in HOP_BY_HOP and not _NOT_FROM_CLIENTS.fullmatch(name)
        if len(self) < self.KEPT and len(name) <= self.LONGEST:
            self[name] = passes
        return passes


_passing = _Passing()


def from_client(headers: Mapping[str, str], *, authorization: bool) -> Headers:
    """The client's headers that a service gets to see; ``authorization`` only where the route reads it.

    Raises 400 where a precondition is none of them: without it a guarded change would be made in any case.
    """
    passed = [pair for pair in headers.items() if _passing[pair[0]] and pair[1].isascii()]
    passed = _less(passed, headers.get("connection"), () if authorization else ("authorization",))
    for name in PRECONDITIONS:
        if name in headers and all(name != known for known, _ in passed):
            raise Malformed("A precondition must be ASCII, and for more than one hop")
    return passed


def _less(headers: Headers, connection: str | None, names: Collection[str]) -> Headers:
    """The headers without those of ``names``, and without those that ``Connection`` says are for one hop only."""
    dropped = _one_hop(connection).union(names) if connection else names
    return [pair for pair in headers if pair[0] not in dropped] if dropped else headers


def _one_hop(connection: str) -> frozenset[str]:
    """The names that a ``Connection`` header lists, less those that never pass. Only short ones are remembered."""
    return _listed(connection) if len(connection) <= 64 else _listed.__wrapped__(connection)


@lru_cache(maxsize=256)
def _listed(connection: str) -> frozenset[str]:
    return frozenset(token.strip().lower() for token in connection.split(",")) - HOP_BY_HOP - {"close", ""}


_NOT_FROM_SERVICES = HOP_BY_HOP | {
    "server", "date", "via", "content-length", "vary", "x-request-id", "x-gateway-request-id",
    "x-content-type-options", "ratelimit", "ratelimit-policy", "x-powered-by",
}  # fmt: skip

VARY = "Accept, Origin"


def from_service(headers: Headers) -> Headers:
    """A service's headers that the client gets to see, with ``Vary`` and the security headers completed."""
    passed: Headers = []
    vary, connection, cached = VARY, None, False
    for pair in headers:
        name = pair[0]
        if name in _NOT_FROM_SERVICES:
            if name == "vary":
                vary = merge_vary(vary, pair[1])
            elif name == "connection":
                connection = pair[1]
        elif not name.startswith("access-control-"):
            passed.append(pair)
            cached = cached or name == "cache-control"
    if connection:
        passed = _less(passed, connection, ())
    passed += (("vary", vary), ("x-content-type-options", "nosniff"))
    if not cached:
        passed.append(("cache-control", "no-store"))
    return passed


def merge_vary(ours: str, theirs: str) -> str:
    if theirs == "Accept":
        return ours
    known = {name.strip().lower() for name in ours.split(",")}
    added = [name.strip() for name in theirs.split(",") if name.strip() and name.strip().lower() not in known]
    return ", ".join([ours, *added])
