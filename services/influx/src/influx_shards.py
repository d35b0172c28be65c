"""How long the time is that each shard of a bucket is for.

InfluxDB keeps files open for every shard that holds points, for as long as it runs, and past the limit of its open
files it answers nobody. A bucket may therefore have about sixty, wherever within its bounds points lie.
"""

from heartguard.timestamps import SECOND

from .times import TimeBounds

MOST = 60
HOUR = 3600
"""The shortest time that InfluxDB makes shards for, in seconds."""
YEAR = 365 * 24 * HOUR


def shard_seconds(retention_seconds: int, bounds: TimeBounds, now: int) -> int:
    """Whole hours of a bucket with that retention (0: for ever); at least a year where points stay for ever.

    ``now`` is in nanoseconds since the epoch. InfluxDB refuses a shard that is longer than the retention.
    """
    ahead = bounds.ahead // SECOND
    span = max(now - bounds.earliest, 0) // SECOND + ahead
    if not retention_seconds:
        return max(YEAR, _hours(span))
    return min(_hours(min(retention_seconds + ahead, span)), max(retention_seconds // HOUR, 1) * HOUR)


def _hours(span: int) -> int:
    """Seconds of each of :data:`MOST` parts of a span, in whole hours."""
    return max(-(-span // (MOST * HOUR)), 1) * HOUR
