"""Tokens, verified once and then remembered for as long as they are good."""

import time

from heartguard.keyring import KeyRing
from heartguard.tokens import Claims, Tokens, bearer

REMEMBERED = 4096
LONGEST = 4096
"""Characters of a header that is remembered; what is longer is mostly blanks."""


class Authenticator:
    """Verifies ``Authorization`` headers, for one event loop.

    Only good ones are remembered, so that nobody can fill the memory with bad ones. Whether a
    token was revoked is not its business: that is asked for every request. What an older key ring
    vouched for is verified anew, so that nothing is remembered beyond its key.
    """

    def __init__(self, tokens: Tokens, size: int = REMEMBERED) -> None:
        self._tokens = tokens
        self._size = size
        self._known: dict[str, tuple[Claims, KeyRing]] = {}

    def claims(self, authorization: str | None) -> Claims:
        """Raises :class:`heartguard.errors.Unauthorized`."""
        ring = self._tokens.ring
        known = self._known.get(authorization) if authorization else None
        if known is not None and known[1] is ring and known[0].exp > time.time():
            return known[0]
        claims = self._tokens.verify(bearer(authorization))
        assert authorization is not None
        if len(authorization) > LONGEST:
            return claims
        self._known.pop(authorization, None)
        if len(self._known) >= self._size:
            del self._known[next(iter(self._known))]
        self._known[authorization] = claims, ring
        return claims
