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

    def take(self, operation: Operation, account: str, device: str = "") -> None:
        """Count one attempt on the account (an address in lower case, or a user's id); 429 where it is too many.

        A ``device`` that the account knows has a bucket of its own, which strangers cannot empty.
        """
        taken = self._limiter.take([Bucket(self._policies[operation], pseudonym(self._key, account, device))])
        if not taken.allowed:
            raise taken.refusal()


def pseudonym(key: bytes, *parts: str) -> str:
    """What stands for an account outside the database: tells no address, nor can guessed ones be found by hashing."""
    return hmac.digest(key, "\0".join(parts).encode(), hashlib.sha256).hex()
