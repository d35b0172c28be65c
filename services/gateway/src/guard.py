"""Who may pass: rate limit, token, revocation and policy, in this order, in one round trip to Valkey."""

from heartguard.errors import Unauthorized
from heartguard.policy import Audience, authorize
from heartguard.ratelimit import AsyncRateLimiter, Bucket, Policy
from heartguard.settings import Rate
from heartguard.tokens import Claims

from . import instruments
from .authentication import Authenticator
from .revocation import Revocations
from .visit import Visit


class Guard:
    """Admits requests, or raises what they are to be told. For one event loop."""

    def __init__(
        self,
        authenticator: Authenticator,
        limiter: AsyncRateLimiter,
        revocations: Revocations,
        *,
        rate: Rate,
        strict_rate: Rate,
    ) -> None:
        self._authenticator = authenticator
        self._limiter = limiter
        self._revocations = revocations
        self._per_ip = Policy("ip", rate)
        self._per_user = Policy("user", rate)
        self._strict = Policy("auth", strict_rate)

    async def limit(self, visit: Visit) -> None:
        """Count a request that leads nowhere: 429 where there have been too many."""
        await self._take(visit, None, strict=False)

    async def admit(
        self, visit: Visit, audience: Audience, *, optional_caller: bool = False, strict: bool = False
    ) -> None:
        """Raise 429, 401, 503 (nobody can tell whether the token was revoked) or 403; else note the caller.

        The token is verified first, for its user's bucket, but what is wrong with it is told after the limit.
        """
        claims, bad_token = self._verify(visit, audience, optional_caller=optional_caller)
        await self._take(visit, claims, strict=strict)
        if bad_token is not None:
            raise bad_token
        if claims is not None:
            assert visit.taken is not None
            await self._revocations.check(claims, visit.authorization, visit.taken)
            visit.claims = claims
        authorize(Audience.ADMIN if audience is Audience.INTERNAL else audience, claims)

    def _verify(
        self, visit: Visit, audience: Audience, *, optional_caller: bool
    ) -> tuple[Claims | None, Unauthorized | None]:
        authorization = visit.authorization
        if audience is Audience.PUBLIC and (not optional_caller or authorization is None):
            return None, None
        try:
            return self._authenticator.claims(authorization), None
        except Unauthorized as error:
            return None, error

    async def _take(self, visit: Visit, claims: Claims | None, *, strict: bool) -> None:
        owner = visit.address.owner
        buckets = [Bucket(self._strict if strict else self._per_ip, owner)]
        if claims is None:
            taken = await self._limiter.take(buckets)
        else:
            buckets.append(Bucket(self._per_user, claims.sub))
            taken = await self._limiter.take(buckets, self._revocations.keys(claims))
        visit.taken = taken
        if not taken.allowed:
            for policy in taken.exhausted:
                instruments.LIMITED.labels(policy).inc()
            raise taken.refusal()
