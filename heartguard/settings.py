"""Typed settings, read once and checked at start.

A service's settings are a frozen dataclass whose fields are made with :func:`variable`. The
environment wins over ``.env``; ``<NAME>_FILE`` names a file that holds the value. Every problem
is reported at once, by the variable's name and what it should be. Values are never shown.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parent.parent
MB = 1024 * 1024

S = TypeVar("S")
Network = IPv4Network | IPv6Network


class SettingsError(Exception):
    """The environment does not make sense; the message lists every variable at fault."""


def variable(name: str, parse: Callable[[str], Any], default: str | None = None, *, optional: bool = False) -> Any:
    """A dataclass field read from the variable ``name``.

    ``default`` is written as it would be in the environment. Without one the variable is needed,
    unless ``optional``, which gives None.
    """
    return field(metadata={"name": name, "parse": parse, "default": default, "optional": optional})


def load(settings: type[S], environ: Mapping[str, str] | None = None) -> S:
    """Read ``settings`` from the environment (the process's and ``.env``, unless ``environ`` is given)."""
    environ = environment() if environ is None else environ
    values: dict[str, Any] = {}
    problems: list[str] = []
    for item in fields(settings):  # type: ignore[arg-type]
        if "name" not in item.metadata:
            if item.default is MISSING and item.default_factory is MISSING:
                raise TypeError(f"{item.name} is not made with variable()")
            continue
        try:
            values[item.name] = _read(item.metadata, environ)
        except ValueError as problem:
            problems.append(f"{item.metadata['name']}: {problem}")
    if problems:
        raise SettingsError(
            "Settings are missing or wrong (see .env.example):\n" + "\n".join(f"  {p}" for p in problems)
        )
    return settings(**values)


def environment(root: Path = ROOT) -> dict[str, str]:
    """``.env`` in the root, overridden by the process's environment."""
    from_file = {k: v for k, v in dotenv_values(root / ".env", interpolate=False).items() if v is not None}
    return {**from_file, **os.environ}


def _read(spec: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
    text = environ.get(spec["name"], "")
    if not text and (path := environ.get(f"{spec['name']}_FILE")):
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as problem:
            raise ValueError(f"the file named by {spec['name']}_FILE cannot be read ({problem})") from None
    if not text:
        if spec["default"] is None:
            if spec["optional"]:
                return None
            raise ValueError("is needed and not set")
        text = spec["default"]
    return spec["parse"](text)


# What a value can be. Each takes the text and gives the value, or raises ValueError saying what it should be.


def text(value: str) -> str:
    return value


def path(value: str) -> Path:
    """A file or folder; a relative one counts from the root of the project."""
    return (ROOT / Path(value).expanduser()).absolute()


def integer(minimum: int, maximum: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not value.isascii() or not value.isdigit() or not minimum <= int(value) <= maximum:
            raise ValueError(f"should be a whole number from {minimum} to {maximum}")
        return int(value)

    return parse


def choice(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"should be one of {', '.join(allowed)}")
        return value

    return parse


def boolean(value: str) -> bool:
    return choice("true", "false")(value.lower()) == "true"


def secret(minimum: int) -> Callable[[str], bytes]:
    """A secret of at least ``minimum`` bytes."""

    def parse(value: str) -> bytes:
        if len(value.encode()) < minimum:
            raise ValueError(f"should be at least {minimum} bytes; make one with: openssl rand -base64 48")
        return value.encode()

    return parse


def public_keys(value: str) -> tuple[bytes, ...]:
    """Ed25519 keys, as ``heartguard audit key`` prints them."""
    found = value.replace(",", " ").split()
    if not all(re.fullmatch("[0-9a-fA-F]{64}", key) for key in found):
        raise ValueError("should be public keys of 64 hexadecimal digits, separated by commas")
    return tuple(bytes.fromhex(key) for key in found)


def url(*schemes: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        try:
            known = urlsplit(value).scheme in schemes
        except ValueError:
            known = False
        if not known:
            raise ValueError(f"should be a URL that begins with {' or '.join(s + '://' for s in schemes)}")
        return value.rstrip("/")

    return parse


def networks(value: str) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
    except ValueError as problem:
        raise ValueError(f"should be networks such as 10.0.0.0/8, comma-separated ({problem})") from None


def origins(value: str) -> frozenset[str]:
    found = frozenset(part.strip().rstrip("/") for part in value.split(",") if part.strip())
    for origin in found:
        parts = urlsplit(origin)
        if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path:
            raise ValueError("should be origins such as https://portal.example.org, comma-separated")
    return found


@dataclass(frozen=True, kw_only=True)
class Rate:
    """``limit`` requests per ``seconds``; a bucket of that size refills at that pace."""

    limit: int
    seconds: int


def rate(value: str) -> Rate:
    units = {"s": 1, "min": 60, "hour": 3600}
    number, _, unit = value.partition("/")
    if not number.isdigit() or not 1 <= int(number) <= 1_000_000 or unit not in units:
        raise ValueError("should be a rate such as 100/min (per s, min or hour; 1 to 1000000)")
    return Rate(limit=int(number), seconds=units[unit])


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """What every service needs."""

    jwt_secret: bytes = variable("JWT_SECRET", secret(32))
    jwt_keyring_file: Path | None = variable("JWT_KEYRING_FILE", path, optional=True)
    jwt_expires_minutes: int = variable("JWT_EXPIRES_IN", integer(1, 1440), "60")
    log_level: str = variable("LOG_LEVEL", choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO")

    def check_servers(self) -> None:
        """Ask the servers that the service depends on what they are, before it starts. It may take three seconds.

        Raises :class:`SettingsError` for one of the wrong kind, and nothing for one that is away.
        """


@dataclass(frozen=True, kw_only=True)
class RefreshSettings:
    """``refresh_token_ttl`` is in seconds."""

    refresh_token_ttl: int = variable("REFRESH_TOKEN_TTL", integer(60, 31_536_000), "1209600")


@dataclass(frozen=True, kw_only=True)
class KeySettings(RefreshSettings, ServiceSettings):
    """What the rotation of keys needs."""


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    database_url: str = variable("DATABASE_URL", url("postgresql", "postgres"))


@dataclass(frozen=True, kw_only=True)
class ValkeySettings:
    redis_url: str = variable("REDIS_URL", url("redis", "rediss", "unix"))


@dataclass(frozen=True, kw_only=True)
class UploadSettings:
    """How large an uploaded file may be. The gateway must know it too: it takes bodies in."""

    max_upload_mb: int = variable("MAX_UPLOAD_MB", integer(1, 1024), "10")

    @property
    def max_upload(self) -> int:
        """Bytes of a file."""
        return self.max_upload_mb * MB

    @property
    def max_upload_body(self) -> int:
        """Bytes of a body that carries one: base64 takes a third more, and JSON may escape its slashes besides."""
        return 2 * self.max_upload + MB


@dataclass(frozen=True, kw_only=True)
class SigningSettings:
    """What signs the audit trail. Any secret will do; the key proper is derived from it."""

    signing_key: bytes = variable("AUDIT_SIGNING_KEY", secret(32))
    former_keys: tuple[bytes, ...] = variable("AUDIT_FORMER_KEYS", public_keys, "")


@dataclass(frozen=True, kw_only=True)
class AuditSettings(ValkeySettings):
    """Where events of the audit trail go: through Valkey, or into a folder while that is away."""

    audit_spool: Path = variable("AUDIT_SPOOL", path, ".heartguard/spool")
