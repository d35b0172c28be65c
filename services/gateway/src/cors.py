"""Cross-origin requests: browsers of allowed origins may call, and read what the gateway says of itself."""

from .headers import Headers

METHODS = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
REQUEST_HEADERS = (
    "Accept, Authorization, Content-Encoding, Content-Type, If-Match, If-None-Match, X-Request-ID, traceparent"
)
RESPONSE_HEADERS = (
    "ETag, Link, Location, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate,"
    " X-Gateway-Request-ID, X-Request-ID"
)
MAX_AGE = 600
"""Seconds that a browser may remember a preflight's answer."""

_COOKIES = ("access-control-allow-credentials", "true")
"""So that a portal on an origin of its own keeps the cookie by which signing in knows the device. No cookie gives
any right: what a page of another site could make a browser send with one, it could send without."""


class Cors:
    """The CORS headers for the origins of ``ALLOWED_ORIGINS``, and none for any other."""

    def __init__(self, allowed: frozenset[str]) -> None:
        self._allowed = allowed

    def actual(self, origin: str | None) -> Headers:
        """For an answer to an actual request."""
        if origin is None or origin not in self._allowed:
            return []
        return [
            ("access-control-allow-origin", origin),
            _COOKIES,
            ("access-control-expose-headers", RESPONSE_HEADERS),
        ]

    def preflight(self, origin: str | None) -> Headers:
        """For the answer to ``OPTIONS``."""
        headers = [("vary", "Accept, Origin, Access-Control-Request-Method, Access-Control-Request-Headers")]
        if origin is not None and origin in self._allowed:
            headers += [
                ("access-control-allow-origin", origin),
                _COOKIES,
                ("access-control-allow-methods", METHODS),
                ("access-control-allow-headers", REQUEST_HEADERS),
                ("access-control-max-age", str(MAX_AGE)),
            ]
        return headers
