"""The store in InfluxDB 2.

A bucket is written and read by its name. InfluxDB 2.9 may crash when a bucket is dropped while a query reads it, so
none is: to drop a bucket is to give it another name, under which nobody finds it, and the next clean-up after every
query has ended removes it.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from heartguard.errors import Unavailable
from heartguard.logs import log

from . import tenancy
from .errors import NotNumeric, TooManyDropped
from .influx_batch import InfluxBatch, Lines, send, tell
from .influx_client import InfluxClient
from .influx_files import TO_DO, FileWatch
from .influx_http import REQUEST_SECONDS, InfluxError, border
from .influx_read import select_rows
from .influx_shards import shard_seconds
from .influx_types import KnownTypes, for_a_write
from .line_protocol import PRECISIONS
from .memory import Memory
from .store import ANY_TYPE, NUMERIC, BucketGone, FieldType, Row, Selection, StoredBucket, Types
from .times import TimeBounds

BUCKETS_REMEMBERED = 10_000
REMEMBERED_SECONDS = 30.0
"""How long a bucket is used before it is looked up again: another process may have made it anew."""
DROPPED = "heartguard_dropped_"
"""Begins the name of a bucket that is to be removed, before its former name and its id."""
MOST_DROPPED = 10
"""Buckets of an organization that wait for that."""
READ_FOR = timedelta(seconds=REQUEST_SECONDS + 12)
"""How long after a bucket was renamed some query may still read it."""
UNITS = {nanoseconds: name for name, nanoseconds in PRECISIONS.items()}


class InfluxStore:
    """Implements :class:`.store.Store`. Buckets have the same names there."""

    def __init__(self, client: InfluxClient, bounds: TimeBounds, max_files: int | None = None) -> None:
        self._client = client
        self._bounds = bounds
        self._known_buckets: Memory[tuple[int, str], tuple[StoredBucket, float]] = Memory(BUCKETS_REMEMBERED)
        self._types = KnownTypes(client)
        self._files = FileWatch(client, max_files)

    @border()
    def organizations(self) -> list[int]:
        """Those that have buckets."""
        return sorted({int(org) for one in self._client.buckets() if (org := tenancy.owner(one["name"]))})

    @border()
    def measurements(self, bucket: StoredBucket) -> list[str]:
        """The names of all measurements."""
        return self._types.measurements(bucket)

    @border()
    def bucket(self, org_id: int, name: str) -> StoredBucket | None:
        known = self._known_buckets.get((org_id, name))
        if known and time.monotonic() < known[1]:
            return known[0]
        found = self._client.bucket(name)
        if found is None:
            self._known_buckets.forget((org_id, name))
            return None
        stored = _stored(org_id, found)
        self._known_buckets.keep([((org_id, name), (stored, time.monotonic() + REMEMBERED_SECONDS))])
        return stored

    @border()
    def buckets(self, org_id: int) -> list[StoredBucket]:
        default = tenancy.default_bucket(org_id)
        first = self._client.bucket(default)
        others = self._client.buckets(f"{default}_")
        return [
            _stored(org_id, bucket)
            for bucket in [*([first] if first else []), *others]
            if tenancy.owns(org_id, bucket["name"])
        ]

    @border()
    def create_bucket(
        self, org_id: int, name: str, *, retention_seconds: int, description: str | None
    ) -> StoredBucket | None:
        if self._files.is_full:
            log.error("influx", error="no bucket is made: it has nearly no files left", to_do=TO_DO)
            raise Unavailable
        shards = shard_seconds(retention_seconds, self._bounds, time.time_ns())
        made = self._client.create_bucket(name, retention_seconds, shards, description)
        if not made:
            return None
        tell("BUCKET_CREATE", bucket=name)
        return _stored(org_id, made)

    @border()
    def drop_bucket(self, org_id: int, name: str) -> bool:
        found = self._client.bucket(name)
        self._known_buckets.forget((org_id, name))
        if found is None:
            return False
        if len(self._client.buckets(f"{DROPPED}org_{org_id}_")) >= MOST_DROPPED:
            raise TooManyDropped
        if not self._client.rename_bucket(found["id"], f"{DROPPED}org_{org_id}_{found['id']}"):
            return False
        tell("BUCKET_DELETE", bucket=name)
        return True

    def batch(self, bucket: StoredBucket) -> InfluxBatch:
        return InfluxBatch(self._client, bucket, self._types, lambda: self._forget(bucket))

    @border()
    def write_lines(self, bucket: StoredBucket, lines: bytes, precision: int, types: Types, values: int) -> None:
        text = Lines(lines, UNITS[precision], types, values)
        send(self._client, bucket, self._types, text, lambda: self._forget(bucket))

    @border()
    @for_a_write()
    def field_types(self, bucket: StoredBucket, measurements: Collection[str]) -> Mapping[tuple[str, str], FieldType]:
        found: dict[tuple[str, str], FieldType] = {}
        try:
            for measurement in measurements:
                types = self._types.of(bucket, measurement)
                found |= {(measurement, field): kind for field, kind in types.items()}
        except BucketGone:
            self._forget(bucket)
            raise
        return found

    @border()
    def select(self, bucket: StoredBucket, selection: Selection) -> Sequence[Row]:
        try:
            if selection.aggregate is None or selection.aggregate in ANY_TYPE:
                return select_rows(self._client, bucket.name, selection)
            try:
                return self._select_numbers(bucket, selection)
            except InfluxError as error:
                if not error.is_of_types:
                    raise
            self._types.forget(bucket, [selection.measurement])  # another process has made a field since
            return self._select_numbers(bucket, selection)
        except BucketGone:
            self._forget(bucket)
            raise
        except InfluxError as error:
            if error.is_missing:
                self._forget(bucket)
                raise BucketGone from None
            raise

    def _select_numbers(self, bucket: StoredBucket, selection: Selection) -> Sequence[Row]:
        """The same with an aggregate that needs numbers. Raises :class:`NotNumeric`."""
        types = self._types.of(bucket, selection.measurement)
        if _others(types, selection):
            # InfluxDB looks for each chosen field in each chosen series, and refuses what it would find in none, too.
            types = self._types.among(bucket, selection)
            if others := _others(types, selection):
                assert selection.aggregate is not None
                raise NotNumeric(selection.aggregate, others)
            if not types:
                return []
            selection = replace(selection, fields=sorted(types))
        integers = [field for field, kind in types.items() if kind == "integer" and _is_meant(field, selection)]
        return select_rows(self._client, bucket.name, selection, integers)

    @border()
    def check(self) -> None:
        self._client.check()

    def close(self) -> None:
        self._client.close()

    def sweep(self) -> None:
        """Remove dropped buckets that no query can be reading any more. Any process may do it at any time."""
        self._files.look()
        try:
            for bucket in self._client.buckets(DROPPED):
                if bucket["name"].endswith(f"_{bucket['id']}") and self._client.unchanged_for(bucket) > READ_FOR:
                    self._client.drop_bucket(bucket["id"])
        except (InfluxError, Unavailable) as error:
            log.warning("sweep", error=repr(error))

    @border()
    def unfitting_shards(self) -> list[tuple[StoredBucket, int, int]]:
        """Buckets whose new shards are made for another time than they should be: it is, and should be, in seconds."""
        found = []
        for bucket in self._client.buckets("org_"):
            if org := tenancy.owner(bucket["name"]):
                stored = _stored(int(org), bucket)
                fitting = shard_seconds(stored.retention_seconds, self._bounds, time.time_ns())
                present = _sum(bucket["retentionRules"], "shardGroupDurationSeconds")
                if present != fitting:
                    found.append((stored, present, fitting))
        return found

    @border()
    def set_shards(self, bucket: StoredBucket, seconds: int) -> bool:
        """Have new shards made for that time; whether there is such a bucket."""
        return self._client.set_retention(bucket.id, bucket.retention_seconds, seconds)

    def _forget(self, bucket: StoredBucket) -> None:
        self._known_buckets.forget((bucket.org_id, bucket.name))


def _is_meant(field: str, selection: Selection) -> bool:
    return selection.fields is None or field in selection.fields


def _others(types: Mapping[str, FieldType], selection: Selection) -> list[str]:
    """The chosen fields that are no numbers."""
    return sorted(field for field, kind in types.items() if kind not in NUMERIC and _is_meant(field, selection))


def _sum(rules: Iterable[Mapping[str, int]], what: str) -> int:
    """There is one rule at most."""
    return sum(rule.get(what, 0) for rule in rules)


def _stored(org_id: int, bucket: Mapping[str, Any]) -> StoredBucket:
    return StoredBucket(
        id=bucket["id"],
        org_id=org_id,
        name=bucket["name"],
        retention_seconds=_sum(bucket.get("retentionRules", []), "everySeconds"),
        created_at=datetime.fromisoformat(bucket["createdAt"]),
        description=bucket.get("description") or None,
    )
