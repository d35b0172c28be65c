"""How many files InfluxDB has open, so that an operator hears of it before it has no more: it answers nobody then.

InfluxDB 2 does not tell. It does tell which shards it has, and what each costs was counted.
"""

import re
import time
from collections import Counter
from collections.abc import Collection

from prometheus_client import Gauge

from heartguard.errors import Unavailable
from heartguard.logs import log

from .influx_client import InfluxClient
from .influx_http import InfluxError

SECONDS = 600
"""Between two looks. InfluxDB names every shard in a few kilobytes of text."""
FIRST_SECONDS = 60
"""From the start to the first one."""
OF_ITSELF, PER_BUCKET, PER_SHARD = 20, 8, 9
"""Open files of InfluxDB 2.9: its own, and those of each bucket and each shard that holds points."""
WARNING, FULL = 0.8, 0.9
"""Parts of what it may open, from which on it is logged, and no more buckets are made."""
_SHARD = re.compile(r'storage_shard_series\{bucket="([0-9a-f]+)"')

SHARDS = Gauge("heartguard_influx_shards", "Shards of InfluxDB that hold points, when last looked at.")
OPEN = Gauge("heartguard_influx_open_files", "Files that InfluxDB has open, estimated from its shards.")
MOST = Gauge("heartguard_influx_max_files", "Files that it may open (INFLUX_MAX_FILES); 0 where that is not known.")


class FileWatch:
    """``most`` is how many files InfluxDB may open, None where nobody said."""

    def __init__(self, client: InfluxClient, most: int | None) -> None:
        self._client = client
        self._most = most
        self._open = 0
        self._next = time.monotonic() + FIRST_SECONDS
        MOST.set(most or 0)

    @property
    def is_full(self) -> bool:
        """Whether a further bucket could be one too many."""
        return self._most is not None and self._open > FULL * self._most

    def look(self) -> None:
        """Count, if it is time to."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SECONDS
        try:
            shards = self._shards({bucket["id"] for bucket in self._client.buckets()})
        except (InfluxError, Unavailable) as error:
            log.warning("influx", error=f"its shards cannot be counted: {error!r}"[:500])
            return
        self._open = OF_ITSELF + PER_BUCKET * len(shards) + PER_SHARD * shards.total()
        SHARDS.set(shards.total())
        OPEN.set(self._open)
        if self._most is not None and self._open > WARNING * self._most:
            log.error("influx", error="it will soon have no files left", open=self._open, most=self._most, to_do=TO_DO)

    def _shards(self, buckets: Collection[str]) -> Counter[str]:
        """How many each bucket has; InfluxDB goes on naming those of dropped ones until it is restarted."""
        found = (_SHARD.match(line) for line in self._client.metrics())
        return Counter(shard[1] for shard in found if shard and shard[1] in buckets)


TO_DO = "raise the limit of open files in InfluxDB's unit and INFLUX_MAX_FILES with it: docs/operations.md, InfluxDB"
