"""The store in InfluxDB 2."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from . import tenancy
from .errors import NotNumeric
from .influx_batch import InfluxBatch, Lines, send, tell
from .influx_client import InfluxClient
from .influx_http import InfluxError, border
from .influx_read import select_rows
from .influx_types import KnownTypes, for_a_write
from .line_protocol import PRECISIONS
from .memory import Memory
from .store import ANY_TYPE, NUMERIC, BucketGone, FieldType, Row, Selection, StoredBucket, Types

BUCKETS_REMEMBERED = 10_000
UNITS = {nanoseconds: name for name, nanoseconds in PRECISIONS.items()}


class InfluxStore:
    """Implements :class:`.store.Store`. Buckets have the same names there.

    What is written is written by a bucket's id, which is never used again; what is read by its name.
    """

    def __init__(self, client: InfluxClient) -> None:
        self._client = client
        self._known_buckets: Memory[tuple[int, str], StoredBucket] = Memory(BUCKETS_REMEMBERED)
        self._types = KnownTypes(client)

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
        if known := self._known_buckets.get((org_id, name)):
            return known
        found = self._find(org_id, name)
        if found is not None:
            self._known_buckets.keep([((org_id, name), found)])
        return found

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
        made = self._client.create_bucket(name, retention_seconds, description)
        if not made:
            return None
        tell("BUCKET_CREATE", bucket=name)
        return _stored(org_id, made)

    @border()
    def drop_bucket(self, org_id: int, name: str) -> bool:
        found = self._find(org_id, name)
        self._known_buckets.forget((org_id, name))
        if found is None or not self._client.drop_bucket(found.id):
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
                types = self._types.of(bucket, measurement, soon=True)
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
            types = self._types.of(bucket, selection.measurement)
            if _others(types, selection):
                types = self._types.among(bucket, selection)
            if others := _others(types, selection):
                raise NotNumeric(selection.aggregate, others)
            integers = [field for field, kind in types.items() if kind == "integer" and _is_meant(field, selection)]
            return select_rows(self._client, bucket.name, selection, integers)
        except BucketGone:
            self._forget(bucket)
            raise
        except InfluxError as error:
            if error.is_missing:
                self._forget(bucket)
                raise BucketGone from None
            raise

    @border()
    def check(self) -> None:
        self._client.check()

    def close(self) -> None:
        self._client.close()

    def sweep(self) -> None:
        """InfluxDB clears away by itself."""

    def _find(self, org_id: int, name: str) -> StoredBucket | None:
        found = self._client.bucket(name)
        return _stored(org_id, found) if found else None

    def _forget(self, bucket: StoredBucket) -> None:
        self._known_buckets.forget((bucket.org_id, bucket.name))


def _is_meant(field: str, selection: Selection) -> bool:
    return selection.fields is None or field in selection.fields


def _others(types: Mapping[str, FieldType], selection: Selection) -> list[str]:
    """The chosen fields that are no numbers."""
    return sorted(field for field, kind in types.items() if kind not in NUMERIC and _is_meant(field, selection))


def _stored(org_id: int, bucket: Mapping[str, Any]) -> StoredBucket:
    return StoredBucket(
        id=bucket["id"],
        org_id=org_id,
        name=bucket["name"],
        retention_seconds=sum(rule.get("everySeconds", 0) for rule in bucket.get("retentionRules", [])),
        created_at=datetime.fromisoformat(bucket["createdAt"]),
        description=bucket.get("description") or None,
    )
