"""Tokens (section 2 of the contract): the key ring, signing and verification."""

import hashlib
import time
import uuid
from dataclasses import dataclass
from typing import Any, Literal

import jwt
import msgspec
from jwt.utils import base64url_decode, base64url_encode

from .errors import Unauthorized

ISSUER = "heartguard"
AUDIENCE = "heartguard"
ALGORITHM = "HS256"

CLOCK_SKEW = 30
"""Seconds that the clock of the machine that issued a token may be ahead of this one's."""

TokenType = Literal["access", "refresh"]


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says. Times are Unix seconds."""

    sub: str
    role: Literal["admin", "manager", "user", "service"]
    org_id: int
    sid: str
    jti: str
    typ: TokenType
    iat: int
    exp: int
    iss: str = ISSUER
    aud: str = AUDIENCE

    @property
    def user_id(self) -> int:
        return int(self.sub)


@dataclass(frozen=True)
class KeyRing:
    """Signing keys by ``kid``. The newest signs; all verify."""

    keys: dict[str, bytes]
    newest: str

    @classmethod
    def from_secret(cls, secret: bytes) -> "KeyRing":
        """The ring that starts from ``JWT_SECRET``. The ``kid`` is a hash, so that all services agree on it."""
        kid = hashlib.sha256(b"heartguard kid\0" + secret).hexdigest()[:16]
        return cls({kid: secret}, kid)


class Tokens:
    """Signs and verifies with a key ring."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._jwt = jwt.PyJWT(
            options={
                "require": ["iss", "aud", "sub", "role", "org_id", "sid", "iat", "exp", "jti", "typ"],
                "verify_iat": False,
            }
        )

    def sign(self, claims: Claims) -> str:
        kid = self._ring.newest
        return self._jwt.encode(msgspec.to_builtins(claims), self._ring.keys[kid], ALGORITHM, headers={"kid": kid})

    def issue(self, *, sub: str, role: str, org_id: int, sid: str, typ: TokenType, seconds: int) -> tuple[str, Claims]:
        """Sign a fresh token that lives ``seconds``."""
        now = int(time.time())
        claims = msgspec.convert(
            {
                "sub": sub, "role": role, "org_id": org_id, "sid": sid, "typ": typ,
                "jti": str(uuid.uuid4()), "iat": now, "exp": now + seconds,
            },
            Claims,
        )  # fmt: skip
        return self.sign(claims), claims

    def verify(self, token: str, typ: TokenType = "access") -> Claims:
        """The claims of a good token of that type; anything else is :class:`Unauthorized`.

        This looks at signature, times, issuer, audience and type; revocation is asked elsewhere.
        """
        claims = self.read(token)
        if claims.typ != typ:
            raise Unauthorized
        return claims

    def read(self, token: str) -> Claims:
        """The claims of a good token of either type; anything else is :class:`Unauthorized`."""
        try:
            key = self._ring.keys[jwt.get_unverified_header(token)["kid"]]
            raw: dict[str, Any] = self._jwt.decode(token, key, algorithms=[ALGORITHM], audience=AUDIENCE, issuer=ISSUER)
            claims = msgspec.convert(raw, Claims)
        # A header is read before its signature is: nested deeply enough, it exhausts the parser's stack.
        except (
            jwt.PyJWTError,
            msgspec.ValidationError,
            ArithmeticError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
        ):
            raise Unauthorized from None
        if not claims.sub.isdecimal() or claims.iat > time.time() + CLOCK_SKEW or not _is_canonical(token):
            raise Unauthorized
        return claims

    def service_token(self, seconds: int = 60) -> str:
        """A short-lived token for a call from one service to another; never given to a person."""
        token, _ = self.issue(sub="0", role="service", org_id=0, sid="service", typ="access", seconds=seconds)
        return token


def _is_canonical(token: str) -> bool:
    """Whether the signature is written in the one way that base64url has for it.

    The decoder skips foreign characters and ignores the last character's spare bits, so that one
    signature could be written in many ways; header and payload are signed as they are written.
    """
    signature = token.rpartition(".")[2]
    return base64url_encode(base64url_decode(signature)).decode() == signature


def bearer(authorization: str | None) -> str:
    """The token of an ``Authorization: Bearer`` header."""
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > 4096:
        raise Unauthorized
    return token
