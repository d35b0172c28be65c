"""Which requests there are: what the services state about their endpoints, as a matcher."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from heartguard.endpoint import DEFAULT_MAX_BODY
from heartguard.errors import Malformed, NotFound, ServiceError
from heartguard.policy import Audience
from heartguard.services import SERVICES

SAFE_IN_PATH = "/-._~!$&'()*+,;=:@"
"""What RFC 3986 lets stand in a path as it is; all else is percent-encoded."""

_SUSPICIOUS = re.compile(r"//|/\.{1,2}(/|\Z)|[\\\x00-\x1f\x7f\ufffd]")
"""Paths that two programs may read differently: empty and dot segments, backslashes, control characters, no UTF-8."""

STRICTER = frozenset({"/auth/login", "/auth/register", "/auth/refresh"})
"""Where passwords and refresh tokens are tried (section 3 of the contract)."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the published routes. ``max_body`` is in bytes; 0 says that no body is expected.

    How large the body of an ``upload`` may be is a setting.
    """

    service: str
    method: str
    path: str
    audience: Audience
    max_body: int
    upload: bool = False
    optional_caller: bool = False
    token_scheme: bool = False
    influx_errors: bool = False
    audit: str | None = None

    @property
    def body_limit(self) -> int:
        """Bytes that a body may have. One that nobody expects may still come, and is for the service to ignore."""
        return self.max_body or DEFAULT_MAX_BODY

    @property
    def too_large(self) -> str | None:
        """The code for a body over the limit: how large a file may be is for its service to say, whoever says it."""
        return f"{SERVICES[self.service].prefix}_413" if self.upload else None

    @property
    def stricter(self) -> bool:
        return self.method == "POST" and self.path in STRICTER

    @property
    def changes(self) -> bool:
        """Whether the request may change something, and so belongs into the audit trail."""
        return self.method not in {"GET", "HEAD"}

    @property
    def reads_token(self) -> bool:
        """Elsewhere the ``Authorization`` header is not looked at."""
        return self.audience is not Audience.PUBLIC or self.optional_caller


class _Published(msgspec.Struct, frozen=True):
    routes: list[Route]


@dataclass(frozen=True)
class Template:
    """A path with the methods that it answers."""

    path: str
    methods: Mapping[str, Route]

    @cached_property
    def allow(self) -> str:
        extra = {"OPTIONS"} | ({"HEAD"} if "GET" in self.methods else set())
        return ", ".join(sorted(self.methods.keys() | extra))

    def route(self, method: str) -> Route:
        """Raises 405 for a method that nobody stated; ``HEAD`` goes where ``GET`` does."""
        found = self.methods.get("GET" if method == "HEAD" else method)
        if found is None:
            raise ServiceError(405, headers={"Allow": self.allow})
        return found

    @property
    def pattern(self) -> str:
        parts = re.split(r"\{\w+\}", self.path)
        return "[^/]+".join(re.escape(part) for part in parts)


class Routes:
    """Finds the route of a request. Immutable, so thread-safe."""

    def __init__(self, routes: Iterable[Route]) -> None:
        paths: dict[str, dict[str, Route]] = {}
        for route in routes:
            paths.setdefault(route.path, {})[route.method] = route
        templates = [Template(path, methods) for path, methods in paths.items()]
        self._fixed = {template.path: template for template in templates if "{" not in template.path}
        self._open = [template for template in templates if "{" in template.path]
        self.influx_paths = frozenset(
            route.path for methods in paths.values() for route in methods.values() if route.influx_errors
        )
        """Where failures are told as InfluxDB tells them, too; these paths have no parameters."""
        self._matcher = re.compile("|".join(f"({template.pattern})" for template in self._open) or r"(?!)")

    @classmethod
    def load(cls, file: Path, max_upload_body: int) -> "Routes":
        """The published routes: those of all services but the gateway itself, which answers its own."""
        published = msgspec.json.decode(file.read_bytes(), type=_Published).routes
        return cls(replace(route, max_body=max_upload_body) if route.upload else route for route in published)

    def find(self, path: str) -> tuple[Template, str]:
        """The template of ``path`` (decoded) and the path to forward, encoded anew.

        Raises 400 for a path that could be read in several ways, 404 for one that nobody stated.
        """
        if template := self._fixed.get(path):
            return template, path
        if _SUSPICIOUS.search(path):
            raise Malformed("The path has empty or dot segments, backslashes, control characters or no UTF-8")
        match = self._matcher.fullmatch(path)
        if match is None or match.lastindex is None:
            raise NotFound
        return self._open[match.lastindex - 1], quote(path, safe=SAFE_IN_PATH)


PREFIXES = frozenset(service.path for service in SERVICES.values() if service.name != "gateway")


def is_proxied(path: str) -> bool:
    """Whether the path lies under a service's; all else is for Flask."""
    head = path.find("/", 1)
    return (path if head < 0 else path[:head]) in PREFIXES
