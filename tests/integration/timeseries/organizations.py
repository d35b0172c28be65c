"""Numbers of organizations that no other run has, and what becomes of their buckets.

So runs on the same InfluxDB do not meet, and none leaves anything behind there: a test's buckets are dropped after
it, those of modules at the end, and what a run that was killed has left by the next run that is later by hours.
"""

import itertools
import random
import re
from datetime import UTC, datetime, timedelta

from .influx import Influx, Json

NOBODY_S = timedelta(hours=3)
"""No run takes as long: a bucket that is older was left behind."""
MOST = 10_000
"""In a run: PostgreSQL has 32 bits for such a number."""
_OURS = re.compile(r"(?:heartguard_dropped_)?org_1(\d{5})\d{4}0?(_.*)?")


class Organizations:
    """Those of this run, each with a number of its own."""

    def __init__(self) -> None:
        self._run = f"{random.SystemRandom().randrange(100_000):05d}"
        self._numbers = itertools.count()
        self.given = 0

    def new(self) -> int:
        self.given += 1
        number = next(self._numbers)
        assert number < MOST
        return int(f"1{self._run}{number:04d}")

    def names(self, since: int = 0) -> re.Pattern[str]:
        """Buckets of those that were given out from the ``since``\\ th on."""
        numbers = "|".join(f"{number:04d}" for number in range(since, self.given)) or "none"
        return re.compile(rf"(?:heartguard_dropped_)?org_1{self._run}({numbers})0?(_.*)?")

    def is_left_over(self, bucket: Json) -> bool:
        """Whether a bucket is one of a former run's."""
        name = _OURS.fullmatch(bucket["name"])
        age = datetime.now(UTC) - datetime.fromisoformat(bucket["createdAt"])
        return name is not None and name[1] != self._run and age > NOBODY_S


def drop_named(influx: Influx, names: re.Pattern[str]) -> None:
    for bucket in influx.buckets():
        if names.fullmatch(bucket["name"]):
            influx.drop(bucket["id"])


def drop_left_overs(influx: Influx, organizations: Organizations) -> None:
    for bucket in influx.buckets():
        if organizations.is_left_over(bucket):
            influx.drop(bucket["id"])
