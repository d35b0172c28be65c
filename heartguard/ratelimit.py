"""Token buckets, exact across any number of processes while Valkey answers.

A bucket holds ``limit`` tokens and gains ``limit`` of them in ``window`` seconds, evenly. One
Lua script reads all buckets of a request, takes one token from each or from none, and looks
further keys up in the same round trip. Without Valkey the same arithmetic runs in this
process's memory: a limit then holds per process, but there always is one.

The arithmetic is in whole numbers, so nothing is ever lost or gained to rounding: time is in
microseconds, and one token weighs ``window`` in microseconds, so that a bucket gains ``limit``
in each. The largest bucket (a million per hour) weighs 3.6e15, which a Lua number holds exactly.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from .errors import ServiceError, Unavailable
from .pipeline import Pipeline
from .resp import Script
from .settings import Rate
from .valkey import FastValkey

MEMORY_BUCKETS = 65_536
"""How many buckets are kept without Valkey; the longest unused one makes place."""

# KEYS: the buckets', then those to look up. ARGV: how many buckets, then each one's limit and window (µs).
# Answer: 1 where tokens were taken; per bucket the tokens left and the ms to the next one; per lookup its value.
_TAKE = Script("""
local count = tonumber(ARGV[1])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local levels, answer = {}, {1}
for i = 1, count do
  local limit, window = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local full = limit * window
  levels[i] = full
  local stored = redis.call('GET', KEYS[i])
  if stored then
    local level, at = string.match(stored, '^(%d+) (%d+)$')
    local elapsed = math.max(0, now - at)
    if elapsed < window then levels[i] = math.min(full, level + elapsed * limit) end
  end
  if levels[i] < window then answer[1] = 0 end
end
for i = 1, count do
  local limit, window = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local level = levels[i]
  if answer[1] == 1 then
    level = level - window
    local life = math.ceil((limit * window - level) / limit / 1000)
    redis.call('SET', KEYS[i], string.format('%.0f %.0f', level, now), 'PX', life)
  end
  answer[2 * i] = math.floor(level / window)
  answer[2 * i + 1] = level < limit * window and math.ceil((window - level % window) / limit / 1000) or 0
end
for i = count + 1, #KEYS do answer[count + 1 + i] = redis.call('GET', KEYS[i]) end
return answer
""")


class Policy:
    """A limit that has a name: what every bucket of a kind has in common, prepared once."""

    __slots__ = ("arguments", "header", "limit", "name", "prefix", "window")

    def __init__(self, name: str, rate: Rate) -> None:
        self.name = name
        self.limit = rate.limit
        self.window = rate.seconds * 1_000_000
        self.arguments = (str(self.limit), str(self.window))
        self.header = f'"{name}";q={rate.limit};w={rate.seconds}'
        self.prefix = f"rate:{name}:{rate.limit}/{rate.seconds}:"
        """Begins the keys. A bucket of another rate is another bucket: levels of the two do not compare."""


class Bucket:
    """One bucket to take from: the policy, and whose it is."""

    __slots__ = ("key", "policy")

    def __init__(self, policy: Policy, owner: str) -> None:
        self.policy = policy
        self.key = policy.prefix + owner


class Taken:
    """What came of it. ``states`` holds per bucket the tokens left and the milliseconds until there is one more.

    ``found`` holds the value of each key looked up, ``run_id`` names the Valkey process that said so. Both are
    None where Valkey could not be asked.
    """

    __slots__ = ("allowed", "buckets", "found", "run_id", "states")

    def __init__(
        self,
        allowed: bool,
        buckets: Sequence[Bucket],
        states: Sequence[tuple[int, int]],
        found: Sequence[bytes | None] | None = None,
        run_id: bytes | None = None,
    ) -> None:
        self.allowed = allowed
        self.buckets = buckets
        self.states = states
        self.found = found
        self.run_id = run_id

    @property
    def exhausted(self) -> list[str]:
        """The names of the policies that refuse."""
        return [bucket.policy.name for bucket, (left, _) in zip(self.buckets, self.states, strict=True) if not left]

    def headers(self) -> list[tuple[str, str]]:
        """``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers): ``r`` are left for ``t`` s."""
        limits = [
            f'"{bucket.policy.name}";r={left};t={-(-milliseconds // 1000)}'
            for bucket, (left, milliseconds) in zip(self.buckets, self.states, strict=True)
        ]
        policies = [bucket.policy.header for bucket in self.buckets]
        return [("ratelimit-policy", ", ".join(policies)), ("ratelimit", ", ".join(limits))]

    def refusal(self) -> ServiceError:
        """429, and after how many seconds every bucket has a token again."""
        longest = max((milliseconds for left, milliseconds in self.states if not left), default=0)
        return ServiceError(429, headers={"Retry-After": str(max(1, -(-longest // 1000)))})


class RateLimiter:
    """Takes tokens, in Valkey or else in memory. Thread-safe."""

    def __init__(self, valkey: FastValkey) -> None:
        self._valkey = valkey
        self._memory = MemoryBuckets()

    def take(self, buckets: Sequence[Bucket], lookups: Sequence[str] = ()) -> Taken:
        """Take one token from each bucket, or none from any; look keys up on the way."""
        try:
            answer, run_id = self._valkey.run(_TAKE, *_asked(buckets, lookups))
        except Unavailable:
            return self._memory.take(buckets)
        return _taken(buckets, answer, run_id)


class AsyncRateLimiter:
    """The same on an event loop."""

    def __init__(self, valkey: Pipeline) -> None:
        self._valkey = valkey
        self._memory = MemoryBuckets()

    async def take(self, buckets: Sequence[Bucket], lookups: Sequence[str] = ()) -> Taken:
        try:
            answer, run_id = await self._valkey.run(_TAKE, *_asked(buckets, lookups))
        except Unavailable:
            return self._memory.take(buckets)
        return _taken(buckets, answer, run_id)


def _asked(buckets: Sequence[Bucket], lookups: Sequence[str]) -> tuple[list[str], list[str]]:
    """The script's keys and arguments."""
    keys, arguments = [], [str(len(buckets))]
    for bucket in buckets:
        keys.append(bucket.key)
        arguments += bucket.policy.arguments
    keys += lookups
    return keys, arguments


def _taken(buckets: Sequence[Bucket], answer: list[Any], run_id: bytes) -> Taken:
    end = 1 + 2 * len(buckets)
    states = [(answer[i], answer[i + 1]) for i in range(1, end, 2)]
    return Taken(answer[0] == 1, buckets, states, answer[end:], run_id)


class MemoryBuckets:
    """The same buckets in this process, for as long as Valkey is away."""

    def __init__(self, size: int = MEMORY_BUCKETS) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._stored: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def take(self, buckets: Sequence[Bucket], now: int | None = None) -> Taken:
        """``now`` is in microseconds of any steady clock."""
        now = time.monotonic_ns() // 1000 if now is None else now
        with self._lock:
            levels = [self._level(bucket, now) for bucket in buckets]
            weights = [bucket.policy.window for bucket in buckets]
            allowed = all(level >= weight for level, weight in zip(levels, weights, strict=True))
            if allowed:
                levels = [level - weight for level, weight in zip(levels, weights, strict=True)]
                for bucket, level in zip(buckets, levels, strict=True):
                    self._store(bucket.key, level, now)
        states = [_state(*known) for known in zip(levels, weights, (b.policy.limit for b in buckets), strict=True)]
        return Taken(allowed, buckets, states)

    def _level(self, bucket: Bucket, now: int) -> int:
        full = bucket.policy.limit * bucket.policy.window
        level, at = self._stored.get(bucket.key, (full, now))
        return min(full, level + max(0, now - at) * bucket.policy.limit)

    def _store(self, key: str, level: int, now: int) -> None:
        self._stored[key] = (level, now)
        self._stored.move_to_end(key)
        if len(self._stored) > self._size:
            self._stored.popitem(last=False)


def _state(level: int, weight: int, limit: int) -> tuple[int, int]:
    """Tokens left, and milliseconds to the next."""
    if level == limit * weight:
        return limit, 0
    return level // weight, -(-(weight - level % weight) // (limit * 1000))
