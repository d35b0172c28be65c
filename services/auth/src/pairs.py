"""Pairs of tokens: made anew, or made again as they were."""

import hashlib
import time
import uuid
from dataclasses import dataclass

from heartguard.errors import Unauthorized
from heartguard.tokens import Claims, Tokens

from .db_accounts import Account
from .db_tokens import NewRefreshToken, Successor

_ACCESS = uuid.UUID("0d5b7d0e-6c8f-4b0b-9d1a-6f0a4c1f3e57")
"""The namespace (RFC 9562, version 5) in which a refresh token's id gives its access token's."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An access token and the refresh token that follows it, both signed with the key ``kid``."""

    access: str
    access_claims: Claims
    refresh: str
    refresh_claims: Claims
    kid: str

    def stored(self) -> NewRefreshToken:
        """What is kept of it."""
        return NewRefreshToken(
            claims=self.refresh_claims,
            kid=self.kid,
            token_hash=digest(self.refresh),
            access_expires=self.access_claims.exp,
        )


class Pairs:
    """Signs pairs. All that is in one follows from the refresh token's claims: it needs not be kept to be given again.

    ``access_seconds`` and ``refresh_seconds`` are how long the two live.
    """

    def __init__(self, tokens: Tokens, access_seconds: int, refresh_seconds: int) -> None:
        self._tokens = tokens
        self.access_seconds = access_seconds
        self._refresh_seconds = refresh_seconds

    def new(self, account: Account, sid: str) -> Pair:
        now = int(time.time())
        refresh = Claims(
            sub=str(account.id),
            role=account.role,
            org_id=account.org_id,
            sid=sid,
            jti=str(uuid.uuid4()),
            typ="refresh",
            iat=now,
            exp=now + self._refresh_seconds,
        )
        return self._signed(refresh, self._tokens.ring.newest)

    def again(self, account: Account, sid: str, known: Successor) -> Pair:
        """The pair that was given before. Raises :class:`Unauthorized` where it cannot be made any more."""
        refresh = Claims(
            sub=str(account.id),
            role=known.role,
            org_id=account.org_id,
            sid=sid,
            jti=known.jti,
            typ="refresh",
            iat=known.iat,
            exp=known.exp,
        )
        try:
            pair = self._signed(refresh, known.kid)
        except KeyError:
            raise Unauthorized from None
        if digest(pair.refresh) != known.token_hash:
            raise Unauthorized
        return pair

    def _signed(self, refresh: Claims, kid: str) -> Pair:
        access = Claims(
            sub=refresh.sub,
            role=refresh.role,
            org_id=refresh.org_id,
            sid=refresh.sid,
            jti=str(uuid.uuid5(_ACCESS, refresh.jti)),
            typ="access",
            iat=refresh.iat,
            exp=refresh.iat + self.access_seconds,
        )
        return Pair(
            access=self._tokens.sign(access, kid),
            access_claims=access,
            refresh=self._tokens.sign(refresh, kid),
            refresh_claims=refresh,
            kid=kid,
        )


def digest(token: str) -> bytes:
    """What is kept of a refresh token."""
    return hashlib.sha256(token.encode()).digest()
