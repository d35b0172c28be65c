"""Tokens (section 2 of the contract): signing and verification."""

import time
import uuid
from typing import Any, Literal

import jwt
import msgspec
from jwt.utils import base64url_decode, base64url_encode

from .errors import Unauthorized
from .keyring import KeyRing as KeyRing
from .keyring import Ring

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


class Tokens:
    """Signs and verifies with a key ring."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._jwt = jwt.PyJWT(
            options={
                "require": ["iss", "aud", "sub", "role", "org_id", "sid", "iat", "exp", "jti", "typ"],
                "verify_iat": False,
            }
        )

    @property
    def ring(self) -> KeyRing:
        """The keys of this moment: another object as soon as one of them comes, goes or begins to sign."""
        return self._ring.current()

    def sign(self, claims: Claims, kid: str | None = None) -> str:
        """The same claims and ``kid`` (default: of the newest key) give the same token. An unknown one is KeyError."""
        ring = self._ring.current()
        kid = kid or ring.newest
        return self._jwt.encode(msgspec.to_builtins(claims), ring.keys[kid], ALGORITHM, headers={"kid": kid})

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
            key = self._key(jwt.get_unverified_header(token)["kid"])
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

    def _key(self, kid: str) -> bytes:
        """The key of that name; a name not heard of may be in the file already."""
        found = self._ring.current().keys.get(kid)
        return self._ring.reread().keys[kid] if found is None else found

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


def as_bearer(authorization: str | None) -> str | None:
    """The header with the scheme ``Token``, which InfluxDB's clients write, as ``Bearer``."""
    scheme, _, token = (authorization or "").partition(" ")
    return f"Bearer {token}" if scheme.lower() == "token" else authorization


def bearer(authorization: str | None) -> str:
    """The token of an ``Authorization: Bearer`` header."""
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > 4096:
        raise Unauthorized
    return token
