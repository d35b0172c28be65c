"""Times: RFC 3339 to nanoseconds since the epoch and back, durations, and windows.

Times are whole nanoseconds throughout.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from heartguard.timestamps import SECOND, parse_time

UNITS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86_400 * SECOND}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MIN_TIME = (datetime(1678, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(seconds=1) * SECOND
MAX_TIME = (datetime(2262, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(seconds=1) * SECOND - 1
"""The first and the last time that a store can hold: the whole years that 64 bits of nanoseconds hold."""
MAX_WINDOW = MAX_TIME // SECOND * SECOND
"""Nanoseconds. A longer window makes no difference: this one reaches from the epoch to the first and the last time."""
MAX_AHEAD = 7 * 86_400
"""Seconds: the largest ``TIMESERIES_AHEAD_SECONDS``. An hour more may cost a bucket of short retention a shard."""


@dataclass(frozen=True, kw_only=True)
class TimeBounds:
    """Where the time of a new point may lie: not before ``earliest``, at most ``ahead`` from now; in nanoseconds.

    What is stored already stays readable, wherever it lies.
    """

    earliest: int
    ahead: int

    def newest(self, now: int) -> int:
        return min(now + self.ahead, MAX_TIME)


UNBOUNDED = TimeBounds(earliest=MIN_TIME, ahead=MAX_TIME)


@lru_cache(maxsize=8192)
def _minute_text(minute: int) -> str:
    return (_EPOCH + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:")


def format_time(nanoseconds: int) -> str:
    """RFC 3339 in UTC, with as many digits of a fraction as it needs."""
    seconds, fraction = divmod(nanoseconds, SECOND)
    minute, second = divmod(seconds, 60)
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{_minute_text(minute)}{second:02d}{digits}Z"


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration such as ``15m``."""
    return int(text[:-1]) * UNITS[text[-1]]


def parse_moment(text: str, now: int) -> int:
    """Nanoseconds of a bound of a range: a time, ``now()``, or a duration back from ``now``."""
    if text == "now()":
        return now
    if text.startswith("-"):
        return max(MIN_TIME, now - parse_duration(text[1:]))
    return parse_time(text)


def window_stop(number: int, window: int, stop: int) -> int:
    """Where the window ends that is the ``number``-th since the epoch, clipped to the range's ``stop``."""
    return min((number + 1) * window, stop)
