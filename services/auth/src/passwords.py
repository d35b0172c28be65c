"""Passwords: which may be chosen, and how they are kept."""

import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.resources import files
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from heartguard.errors import Unavailable

T = TypeVar("T")

MINIMUM_LENGTH = 8
MAXIMUM_LENGTH = 128

_hasher = PasswordHasher(
    time_cost=2,
    memory_cost=19 * 1024,
    parallelism=1,
    hash_len=RFC_9106_LOW_MEMORY.hash_len,
    salt_len=RFC_9106_LOW_MEMORY.salt_len,
)
"""Argon2id with the minimum that OWASP's password storage cheat sheet recommends: 19 MiB (in KiB), two passes."""

_NOBODYS = _hasher.hash(secrets.token_urlsafe())
"""Compared with where there is no account, so that an unknown address costs what a known one does."""


_cores = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="hash")
"""No more hashes at once than cores, and each core's in the same memory: several would push each other's 19 MiB out of
the processor's cache, which costs a sixth of their time."""
TURN_TIMEOUT = 10.0
"""Seconds to wait for a hash, the turn included."""


@cache
def commonest() -> frozenset[str]:
    """The 3,000 commonest passwords that are long enough; common_passwords.origin.txt says where they come from."""
    listed = files(__package__).joinpath("common_passwords.txt").read_text(encoding="utf-8")
    return frozenset(listed.splitlines())


def problem(password: str) -> str | None:
    """Why the password may not be chosen, or None. Lengths are in characters (code points)."""
    if not MINIMUM_LENGTH <= len(password) <= MAXIMUM_LENGTH:
        return f"should have {MINIMUM_LENGTH} to {MAXIMUM_LENGTH} characters"
    if password in commonest():
        return "is one of the commonest passwords"
    return None


def hashed(password: str) -> str:
    """The password's Argon2id hash, with its salt and parameters."""
    return _in_turn(_hasher.hash, password)


def matches(stored: str | None, password: str) -> bool:
    """Whether ``stored`` is the hash of ``password``. Without a stored hash it takes as long, and does not."""
    try:
        return _in_turn(_hasher.verify, stored or _NOBODYS, password) and stored is not None
    except (VerificationError, InvalidHashError):
        return False


def outdated(stored: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(stored)


def _in_turn(work: Callable[..., T], *texts: str) -> T:
    """What ``work`` gives. Raises :class:`Unavailable` where no core comes free in time."""
    turn = _cores.submit(work, *texts)
    try:
        return turn.result(TURN_TIMEOUT)
    except TimeoutError:
        turn.cancel()
        raise Unavailable from None
