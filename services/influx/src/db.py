"""The store in PostgreSQL: buckets, expiry, and the way to reading and writing.

What the process remembers (buckets, series) it learnt from committed rows, and no id is ever used
again. So the one thing that can go stale is that they still exist, which every transaction asks
first: of the bucket itself, and of its series by the bucket's epoch.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
from sqlalchemy import Connection, Row, bindparam, event, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import Text

from heartguard import audit
from heartguard.database import Database
from heartguard.errors import Unavailable
from heartguard.logs import log

from . import db_read
from .db_write import INCOMING, PostgresBatch
from .memory import Memory
from .slots import KnownSeries, weigh
from .store import BucketGone, FieldType, Selection, StoredBucket
from .store import Row as Result

BUCKETS_REMEMBERED = 10_000
ROOM_FOR_SERIES = 64_000_000
"""Bytes for what is remembered of series, some 100,000."""
PURGED_AT_ONCE = 50_000
LOOKED_AT_ONCE = 1_000
"""Series of a bucket, to see whether they still have points; some 20 ms."""
SWEEP_LOCK = 0x53574550
"""Advisory lock class of the sweep; the second key is the bucket's."""

_SESSION = f"""
SET jit = off;
-- One question should not take the cores that others wait for.
SET max_parallel_workers_per_gather = 0;
-- Of a partition that has no statistics yet the planner expects a single row. Then it would sort all points of a range
-- to group them, where it can hash, or to find the first ones, where the index has them in order.
SET enable_sort = off;
SET enable_incremental_sort = off;
SET work_mem = '16MB';
-- A plan for the very bucket and range: a generic one would have to open every partition there is.
SET plan_cache_mode = force_custom_plan;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
{INCOMING}
"""

_COLUMNS = "id, name, retention_seconds, created_at, description"
_BUCKET = text(f"SELECT {_COLUMNS} FROM heartguard_core.buckets WHERE org_id = :org AND name = :name")  # noqa: S608
_BUCKETS = text(f"SELECT {_COLUMNS} FROM heartguard_core.buckets WHERE org_id = :org ORDER BY name")  # noqa: S608
_ORGANIZATIONS = text("SELECT * FROM heartguard_core.bucket_organizations()")
_MEASUREMENTS = text(
    "SELECT DISTINCT measurement FROM heartguard_core.fields WHERE bucket_id = :bucket ORDER BY measurement"
)
_CREATE = text("SELECT heartguard_core.create_bucket(:org, :name, :retention, :description, :now)")
_DROP = text("SELECT heartguard_core.drop_bucket(:org, :name)")
_TYPES = text("""
    SELECT f.measurement, f.field, f.type
    FROM heartguard_core.buckets b
    LEFT JOIN heartguard_core.fields f ON f.bucket_id = b.id AND f.measurement = ANY(:measurements)
    WHERE b.id = :bucket AND b.org_id = :org
""").bindparams(bindparam("measurements", type_=ARRAY(Text)))

_EXPIRING = text("SELECT heartguard_core.expiring_buckets()")
_ALONE = text("SELECT pg_try_advisory_xact_lock(:class, hashint8(:bucket))")
_ENSURE = text("SELECT heartguard_core.ensure_partitions(:bucket, :now)")
_EXPIRE = text("SELECT heartguard_core.expire(:bucket, :now, :limit)")
_FORGET_SERIES = text("SELECT heartguard_core.forget_series(:bucket, :limit)")
_PURGE = text("SELECT heartguard_core.purge_dropped(:limit)")


class PostgresStore:
    """Implements :class:`.store.Store`. ``clock`` gives nanoseconds since the epoch."""

    def __init__(self, database: Database, clock: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._clock = clock
        self._known_buckets: Memory[tuple[int, str], StoredBucket] = Memory(BUCKETS_REMEMBERED)
        self._known_series: KnownSeries = Memory(ROOM_FOR_SERIES, weigh)
        event.listen(database.engine, "connect", _begin_session)

    def organizations(self) -> list[int]:
        """Those that have buckets."""
        with self._database.transaction() as connection:
            return list(connection.execute(_ORGANIZATIONS).scalars())

    def measurements(self, bucket: StoredBucket) -> list[str]:
        """The names of all measurements."""
        with self._database.transaction(bucket.org_id) as connection:
            return list(connection.execute(_MEASUREMENTS, {"bucket": int(bucket.id)}).scalars())

    def bucket(self, org_id: int, name: str) -> StoredBucket | None:
        if known := self._known_buckets.get((org_id, name)):
            return replace(known, org_id=org_id)
        with self._database.transaction(org_id) as connection:
            row = connection.execute(_BUCKET, {"org": org_id, "name": name}).one_or_none()
        if row is None:
            return None
        found = _stored(row, org_id)
        self._known_buckets.keep([((org_id, name), found)])
        return found

    def buckets(self, org_id: int) -> list[StoredBucket]:
        with self._database.transaction(org_id) as connection:
            return [_stored(row, org_id) for row in connection.execute(_BUCKETS, {"org": org_id})]

    def create_bucket(
        self, org_id: int, name: str, *, retention_seconds: int, description: str | None
    ) -> StoredBucket | None:
        wanted = {"org": org_id, "name": name, "retention": retention_seconds, "description": description}
        with self._database.transaction(org_id) as connection:
            if connection.execute(_CREATE, {**wanted, "now": self._clock()}).scalar_one() is None:
                return None
            audit.record(connection, "BUCKET_CREATE", service="timeseries", org_id=org_id, bucket=name)
            return _stored(connection.execute(_BUCKET, wanted).one(), org_id)

    def drop_bucket(self, org_id: int, name: str) -> bool:
        with self._database.transaction(org_id) as connection:
            dropped = bool(connection.execute(_DROP, {"org": org_id, "name": name}).scalar_one())
            if dropped:
                audit.record(connection, "BUCKET_DELETE", service="timeseries", org_id=org_id, bucket=name)
        self._known_buckets.forget((org_id, name))
        return dropped

    def batch(self, bucket: StoredBucket) -> "PostgresBatch":
        return PostgresBatch(self._database, bucket, self._known_series, lambda: self._forget(bucket))

    def field_types(self, bucket: StoredBucket, measurements: Collection[str]) -> Mapping[tuple[str, str], FieldType]:
        asked = {"bucket": int(bucket.id), "org": bucket.org_id, "measurements": list(measurements)}
        with self._database.transaction(bucket.org_id) as connection:
            rows = connection.execute(_TYPES, asked).all()
        if not rows:
            self._forget(bucket)
            raise BucketGone
        return {(row.measurement, row.field): row.type for row in rows if row.type is not None}

    def select(self, bucket: StoredBucket, selection: Selection) -> Sequence[Result]:
        try:
            with self._database.transaction(bucket.org_id, snapshot=True) as connection:
                return db_read.select_rows(connection, bucket, selection)
        except BucketGone:
            self._forget(bucket)
            raise

    def check(self) -> None:
        self._database.check()

    def close(self) -> None:
        self._database.close()

    def sweep(self) -> None:
        """Make partitions ahead, drop expired ones, clear away series without points and dropped buckets.

        Any process may do it at any time. What cannot be had at once, because somebody else uses it, is left for the
        next time.
        """
        with self._database.transaction() as connection:
            buckets = list(connection.execute(_EXPIRING).scalars())
        for bucket in buckets:
            if self._try(partial(self._renew, bucket), bucket):
                self._try(partial(self._forget_series, bucket), bucket)
        while self._try(self._purge):
            pass

    def _renew(self, bucket: int, connection: Connection) -> bool:
        if not connection.execute(_ALONE, {"class": SWEEP_LOCK, "bucket": bucket}).scalar_one():
            return False
        now = {"bucket": bucket, "now": self._clock()}
        connection.execute(_ENSURE, now)
        connection.execute(_EXPIRE, {**now, "limit": PURGED_AT_ONCE})
        return True

    @staticmethod
    def _forget_series(bucket: int, connection: Connection) -> bool:
        forgotten = {"bucket": bucket, "limit": LOOKED_AT_ONCE}
        return bool(connection.execute(_FORGET_SERIES, forgotten).scalar_one())

    @staticmethod
    def _purge(connection: Connection) -> bool:
        return bool(connection.execute(_PURGE, {"limit": PURGED_AT_ONCE}).scalar_one())

    def _try(self, work: Callable[[Connection], bool], bucket: int | None = None) -> bool:
        try:
            with self._database.transaction() as connection:
                return work(connection)
        except (Unavailable, DBAPIError) as error:
            log.warning("sweep", bucket=bucket, error=repr(error.__cause__ or error))
            return False

    def _forget(self, bucket: StoredBucket) -> None:
        self._known_buckets.forget((bucket.org_id, bucket.name))


def _begin_session(connection: "psycopg.Connection[Any]", _record: object) -> None:
    connection.execute(_SESSION)
    connection.commit()


def _stored(row: Row[Any], org_id: int) -> StoredBucket:
    """The bucket for whoever asked, in whose name everything is then done to it; PostgreSQL knows whose it is."""
    return StoredBucket(
        id=str(row.id),
        org_id=org_id,
        name=row.name,
        retention_seconds=row.retention_seconds,
        created_at=row.created_at,
        description=row.description,
    )
