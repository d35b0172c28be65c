"""Whether a token was revoked: by the list in Valkey, or else by the auth service's word."""

import time

import msgspec

from heartguard.errors import ServiceError, Unauthorized, Unavailable
from heartguard.logs import log
from heartguard.models.auth_token import Introspection, IntrospectRequest
from heartguard.ratelimit import Taken
from heartguard.tokens import Claims, Tokens, bearer
from heartguard.valkey import REVOCATIONS_COMPLETE, REVOKED_SESSION, REVOKED_TOKEN

from . import instruments
from .bodies import Body
from .upstream import Upstream

BELIEVED = 0.5
"""Seconds that the auth service's yes holds. A revocation must be felt within one second."""
REMEMBERED = 4096
SERVICE_TOKEN_SECONDS = 60

_read = msgspec.json.Decoder(Introspection).decode


class Revocations:
    """Refuses revoked tokens, and every token while nobody can tell. For one event loop."""

    def __init__(self, auth: Upstream, tokens: Tokens) -> None:
        self._auth = auth
        self._tokens = tokens
        self._active: dict[str, float] = {}
        self._service_token = ("", 0.0)

    @staticmethod
    def keys(claims: Claims) -> tuple[str, str, str]:
        """What to look up in Valkey for a token."""
        return REVOKED_TOKEN + claims.jti, REVOKED_SESSION + claims.sid, REVOCATIONS_COMPLETE

    async def check(self, claims: Claims, authorization: str | None, taken: Taken) -> None:
        """Raise :class:`Unauthorized` for a revoked token, :class:`Unavailable` where neither list nor auth can say.

        The list counts only where its marker names the very Valkey process that was asked.
        """
        if taken.found is not None:
            token, session, complete_in = taken.found
            if token is not None or session is not None:
                raise Unauthorized
            if complete_in is not None and complete_in == taken.run_id:
                return
        await self._introspect(claims, bearer(authorization))

    async def _introspect(self, claims: Claims, token: str) -> None:
        now = time.monotonic()
        if self._active.get(claims.jti, 0.0) > now:
            return
        if not await self._ask(token):
            raise Unauthorized
        self._active[claims.jti] = now + BELIEVED
        while len(self._active) > REMEMBERED:
            del self._active[next(iter(self._active))]

    async def _ask(self, token: str) -> bool:
        headers = [
            ("authorization", f"Bearer {self._own_token()}"),
            ("content-type", "application/json"),
            ("accept", "application/json"),
        ]
        body = Body(msgspec.json.encode(IntrospectRequest(token=token)))
        try:
            answer = await self._auth.send("POST", "/auth/token/introspect", headers, body)
            if answer.status != 200:
                raise ValueError(f"introspection was answered {answer.status}")
            active = _read(answer.body).active
        except (ServiceError, msgspec.MsgspecError, ValueError) as error:
            instruments.INTROSPECTIONS.labels("failed").inc()
            self._service_token = ("", 0.0)  # its key may be gone
            log.warning("introspection", error=repr(error))
            raise Unavailable from error
        instruments.INTROSPECTIONS.labels("active" if active else "inactive").inc()
        return active

    def _own_token(self) -> str:
        token, until = self._service_token
        if time.monotonic() >= until:
            token = self._tokens.service_token(SERVICE_TOKEN_SECONDS)
            self._service_token = (token, time.monotonic() + SERVICE_TOKEN_SECONDS / 2)
        return token
