"""What the time-series service needs of a store, in a form that PostgreSQL and InfluxDB can both meet."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec

from heartguard.models.timeseries import Aggregate, FieldValue

FieldType = Literal["float", "integer", "boolean", "string"]
TYPES: Mapping[type, FieldType] = {float: "float", int: "integer", bool: "boolean", str: "string"}
NUMERIC: frozenset[FieldType] = frozenset({"float", "integer"})
ANY_TYPE: frozenset[Aggregate] = frozenset({"count", "first", "last"})
"""The aggregates that make sense of any type; the others need numbers."""


class Series:
    """What points of one origin have in common; ``tags`` are sorted by key.

    ``key`` is the same for equal ones only; its hash is computed once.
    """

    __slots__ = ("key", "measurement", "tags")

    def __init__(self, measurement: str, tags: tuple[tuple[str, str], ...]) -> None:
        self.measurement = measurement
        self.tags = tags
        self.key = msgspec.json.encode((measurement, tags))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Series) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"Series({self.measurement!r}, {self.tags!r})"


class Row(NamedTuple):
    """One value of one field of one series. ``time`` is in nanoseconds since the epoch."""

    time: int
    field: str
    value: FieldValue | int
    tags: dict[str, str]


Place = tuple[int, str, tuple[tuple[str, str], ...]]
"""Where a row stands among others: its time, field and tags."""


def place_of(row: Row) -> Place:
    return row.time, row.field, tuple(sorted(row.tags.items()))


@dataclass(frozen=True, kw_only=True)
class StoredBucket:
    """A bucket as the store knows it; ``id`` is the store's own key, never used again for another bucket."""

    id: str
    org_id: int
    name: str
    retention_seconds: int
    created_at: datetime
    description: str | None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Points in ``[start, stop)``, in nanoseconds since the epoch. ``fields`` None means all of them.

    With ``aggregate`` they are gathered in windows of ``window`` nanoseconds, aligned to the epoch. Who is ``patient``
    may mean any number of series, and asks again for a shorter range where it was :class:`.errors.TooMuch`.
    """

    measurement: str
    start: int
    stop: int
    fields: Collection[str] | None
    tags: Mapping[str, str]
    aggregate: Aggregate | None
    window: int
    limit: int
    patient: bool = False


class BucketGone(Exception):
    """The bucket was dropped since it was looked up (another process may have done it)."""


class TypeConflict(Exception):
    """A field has another type than the stored one, or two types in the same batch; nothing was written."""


def told(left_out: int) -> dict[str, Any]:
    """What the audit trail is told of a batch that was stored but for so many points: as far as those, it failed."""
    return {"outcome": "failure", "left_out": left_out} if left_out else {}


class Batch(Protocol):
    """Points on their way into a bucket."""

    def add(self, series: Series, field: str, times: Sequence[int], values: Sequence[FieldValue | int]) -> None:
        """Take values of a field in, with the time of each. The same time again, even in the same call, replaces."""
        ...

    def write(self, left_out: int = 0) -> None:
        """Store all points, durably, or none. Raises :class:`TypeConflict` or :class:`BucketGone`.

        The audit trail is told of how many others the sender's batch had that were ``left_out``.
        """
        ...


Types = Mapping[str, Mapping[str, FieldType]]
"""By measurement and field."""


@runtime_checkable
class LineStore(Protocol):
    """A store that can be given line protocol as it came."""

    def write_lines(
        self,
        bucket: "StoredBucket",
        lines: bytes,
        precision: int,
        types: Mapping[str, Mapping[str, FieldType]],
        values: int,
    ) -> None:
        """Store good lines, whose times are in units of ``precision`` nanoseconds, durably, or none of them.

        ``types`` are those of their fields by measurement, ``values`` is how many they hold. Raises as
        :meth:`Batch.write` does.
        """
        ...


class Store(Protocol):
    """Buckets and their points."""

    def bucket(self, org_id: int, name: str) -> StoredBucket | None:
        """The bucket. It may be answered from memory: whoever uses a stale one gets :class:`BucketGone`."""
        ...

    def buckets(self, org_id: int) -> list[StoredBucket]:
        """All buckets of the organization, by name."""
        ...

    def create_bucket(
        self, org_id: int, name: str, *, retention_seconds: int, description: str | None
    ) -> StoredBucket | None:
        """Make a bucket; None where the name is taken."""
        ...

    def drop_bucket(self, org_id: int, name: str) -> bool:
        """Drop a bucket with all its points; whether there was one."""
        ...

    def batch(self, bucket: StoredBucket) -> Batch:
        """An empty batch for the bucket."""
        ...

    def field_types(self, bucket: StoredBucket, measurements: Collection[str]) -> Mapping[tuple[str, str], FieldType]:
        """The types of all fields of the measurements, by measurement and field. Raises :class:`BucketGone`."""
        ...

    def select(self, bucket: StoredBucket, selection: Selection) -> Sequence[Row]:
        """The chosen points or windows by time, then field, then tags, at most ``limit``.

        A window's time is its end, clipped to the range; empty windows are left out, and so is the
        ``stddev`` of a single point, which is not a number. Raises :class:`BucketGone`, and the
        errors of :mod:`.errors` where the aggregate cannot be computed.
        """
        ...

    def check(self) -> None:
        """Ask the store something; raises where it does not answer."""
        ...

    def sweep(self) -> None:
        """Clear away what has expired or was dropped."""
        ...
