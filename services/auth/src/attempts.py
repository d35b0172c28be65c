"""How often an account may be tried. (How often an address on the network may try is the gateway's to limit.)"""

import hashlib
import hmac
from typing import Literal, get_args

from heartguard.ratelimit import Bucket, Policy, RateLimiter
from heartguard.settings import Rate

Operation = Literal["register", "login", "refresh"]


class Attempts:
    """A bucket per account and operation, filled by AUTH_RATE_LIMIT."""

    def __init__(self, limiter: RateLimiter, rate: Rate, key: bytes) -> None:
        self._limiter = limiter
        self._policies = {operation: Policy(f"account-{operation}", rate) for operation in get_args(Operation)}
        self._key = key

    def take(self, operation: Operation, account: str) -> None:
        """Count one attempt on the account (an address in lower case, or a user's id); 429 where it is too many."""
        # What lies in Valkey must not tell addresses, nor be found by hashing guessed ones.
        owner = hmac.digest(self._key, account.encode(), hashlib.sha256).hex()
        taken = self._limiter.take([Bucket(self._policies[operation], owner)])
        if not taken.allowed:
            raise taken.refusal()
