"""Lock-out: who fails too often has to wait. (Section 4 of the contract.)

An attempt counts as a failure from its very beginning and is struck off when it succeeds, so that a thousand guesses
at once are no more than ten. All that there is to know lies in one sorted set for each owner: its members are
failures, their scores times. The set expires 15 minutes after its last entry; ten entries lock it, and while it is
locked none is added, so it lasts just as long as the lock.

An unknown address has an owner like any other, and locks alike. Without Valkey the same holds in this process's
memory.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex

from heartguard.errors import Unavailable
from heartguard.resp import Script
from heartguard.valkey import FastValkey

from .attempts import pseudonym
from .security import InvalidCredentials, TooManyFailures, WrongCurrentPassword

FAILURES = 10
WINDOW = 15 * 60
"""Seconds in which so many failures lock an owner, and that the lock lasts."""
MEMORY_OWNERS = 65_536
"""How many owners are kept without Valkey; the longest unused one makes place."""

# KEYS: the owner's. ARGV: the attempt's name, failures, window in ms. Answer: ms that the lock lasts, 0 for none.
_BEGIN = Script("""
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  return math.max(1, redis.call('PTTL', KEYS[1]))
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 0
""")
_STRIKE_OFF = Script("return redis.call('ZREM', KEYS[1], ARGV[1])")


class Lockout:
    """Counts failures for each owner: an account, or an account on a device that it knows. Thread-safe."""

    def __init__(self, valkey: FastValkey, key: bytes) -> None:
        self._valkey = valkey
        self._memory = MemoryFailures()
        self._key = key

    @contextmanager
    def attempt(self, *owner: str) -> Iterator[None]:
        """One attempt; it failed if a wrong password is raised within. Raises :class:`TooManyFailures` where locked."""
        who = "lockout:" + pseudonym(self._key, "lockout", *owner)
        name = token_hex(8)
        self._begin(who, name)
        try:
            yield
        except (InvalidCredentials, WrongCurrentPassword):
            raise
        except BaseException:
            self._strike_off(who, name)
            raise
        self._strike_off(who, name)

    def _begin(self, owner: str, name: str) -> None:
        try:
            locked, _ = self._valkey.run(_BEGIN, [owner], [name, FAILURES, WINDOW * 1000])
        except Unavailable:
            locked = self._memory.begin(owner, name)
        if locked:
            raise TooManyFailures(max(1, -(-locked // 1000)))

    def _strike_off(self, owner: str, name: str) -> None:
        self._memory.strike_off(owner, name)
        with suppress(Unavailable):  # it then counts, until it expires
            self._valkey.run(_STRIKE_OFF, [owner], [name])


class MemoryFailures:
    """The same in this process, for as long as Valkey is away."""

    def __init__(self, size: int = MEMORY_OWNERS) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._owners: OrderedDict[str, dict[str, float]] = OrderedDict()

    def begin(self, owner: str, name: str, now: float | None = None) -> int:
        """Milliseconds that the lock lasts; 0 where there is none and the attempt was noted."""
        now = time.monotonic() if now is None else now
        with self._lock:
            failures = self._owners.pop(owner, {})
            ends = max(failures.values(), default=now - WINDOW) + WINDOW
            locked = len(failures) >= FAILURES and ends > now
            if not locked:
                failures = {one: at for one, at in failures.items() if at > now - WINDOW}
                failures[name] = now
            self._owners[owner] = failures
            if len(self._owners) > self._size:
                self._owners.popitem(last=False)
        return max(1, round((ends - now) * 1000)) if locked else 0

    def strike_off(self, owner: str, name: str) -> None:
        with self._lock:
            self._owners.get(owner, {}).pop(name, None)
