"""Moves points from one store to the other, in parts of which each is durable before the next one begins.

The position is kept in a file, so that a transfer goes on where it was broken off. To copy a part again does no harm:
the same points replace themselves.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from heartguard.errors import ServiceError
from heartguard.listening import load_own
from heartguard.local.files import write_private
from heartguard.models.timeseries import FieldValue
from heartguard.services import SERVICES
from heartguard.settings import SettingsError
from heartguard.timestamps import SECOND

from .db import PostgresStore
from .influx_store import InfluxStore
from .settings import StoreSettings
from .store import BucketGone, Row, Selection, Series, StoredBucket, TypeConflict
from .stores import open_store
from .times import MAX_TIME, MIN_TIME

AT_ONCE = 20_000
"""Values in a part."""
MARGIN = 60 * SECOND
"""What expires within this time from now is left to expire."""

AnyStore = PostgresStore | InfluxStore
Position = dict[str, dict[str, int]]
"""The time from which to go on, in nanoseconds, by bucket and measurement."""


class Difference(NamedTuple):
    """A measurement that has not as many values in both stores."""

    bucket: str
    measurement: str
    source: int
    target: int


class TransferError(Exception):
    """What stood in the way, and where."""


@contextmanager
def _at(*place: str) -> Iterator[None]:
    """Say of what goes wrong that it did so at this bucket and measurement."""
    try:
        yield
    except TypeConflict:
        raise TransferError(f"{' '.join(place)}: a field has one type there and another here") from None
    except BucketGone:
        raise TransferError(f"{' '.join(place)}: the bucket was dropped meanwhile") from None
    except ServiceError as error:
        said = "; ".join([error.message, *(detail.message for detail in error.details)])
        raise TransferError(f"{' '.join(place)}: {said}") from error


def stores(source: str, target: str, environ: dict[str, str]) -> tuple[AnyStore, AnyStore]:
    """Both stores. Raises SettingsError where they are the same or a setting is missing."""
    if source == target:
        raise SettingsError("--from and --to name the same store")
    settings = load_own(StoreSettings, SERVICES["timeseries"], environ)
    if missing := [*settings.missing(source), *settings.missing(target)]:
        raise SettingsError(f"These are needed and not set: {', '.join(missing)}")
    return open_store(source, settings), open_store(target, settings)


@dataclass(frozen=True)
class Transfer:
    """``file`` holds the position; ``only`` is the name of the one bucket to copy, None for all."""

    source: AnyStore
    target: AnyStore
    file: Path
    only: str | None = None

    def close(self) -> None:
        self.source.close()
        self.target.close()

    def buckets(self) -> Iterator[StoredBucket]:
        """Those of the source."""
        for org_id in self.source.organizations():
            yield from (bucket for bucket in self.source.buckets(org_id) if self.only in (None, bucket.name))

    def total(self) -> int:
        """How many values there are in the source."""
        return sum(
            count(self.source, bucket, measurement)
            for bucket in self.buckets()
            for measurement in self.source.measurements(bucket)
        )

    def run(self, progress: Callable[[int], None]) -> None:
        """Copy what there is. ``progress`` is told how many values have come over with each part."""
        position = self._position()
        for bucket, target, measurement in self._pairs():
            begin = position.get(bucket.name, {}).get(measurement, MIN_TIME)
            with _at(bucket.name, measurement):
                for rows, following in self._parts(bucket, measurement, begin):
                    self._write(target, measurement, rows)
                    position.setdefault(bucket.name, {})[measurement] = following
                    write_private(self.file, json.dumps(position) + "\n")
                    progress(len(rows))

    def differences(self) -> list[Difference]:
        """What the stores do not have in common, by numbers."""
        found = []
        for bucket, target, measurement in self._pairs():
            with _at(bucket.name, measurement):
                counts = count(self.source, bucket, measurement), count(self.target, target, measurement)
            if counts[0] != counts[1]:
                found.append(Difference(bucket.name, measurement, *counts))
        return found

    def _pairs(self) -> Iterator[tuple[StoredBucket, StoredBucket, str]]:
        """Each measurement, with its bucket in the source and in the target."""
        for bucket in self.buckets():
            with _at(bucket.name):
                target, measurements = self._bucket(bucket), self.source.measurements(bucket)
            for measurement in measurements:
                yield bucket, target, measurement

    def _position(self) -> Position:
        if not self.file.exists():
            return {}
        found: Position = json.loads(self.file.read_text(encoding="utf-8"))
        return found

    def _bucket(self, bucket: StoredBucket) -> StoredBucket:
        """The same bucket in the target."""
        made = self.target.bucket(bucket.org_id, bucket.name) or self.target.create_bucket(
            bucket.org_id, bucket.name, retention_seconds=bucket.retention_seconds, description=bucket.description
        )
        found = made or self.target.bucket(bucket.org_id, bucket.name)
        assert found is not None
        return found

    def _parts(self, bucket: StoredBucket, measurement: str, begin: int) -> Iterator[tuple[list[Row], int]]:
        """Whole times of a measurement, oldest first, and where to go on after them."""
        limit = AT_ONCE
        while True:
            selection = replace(everything(measurement, bucket), limit=limit)
            selection = replace(selection, start=max(begin, selection.start))
            rows = list(self.source.select(bucket, selection))
            if len(rows) == limit:  # there may be more of the last time
                last = rows[-1].time
                rows = [row for row in rows if row.time < last]
                if not rows:
                    limit *= 2
                    continue
            if not rows:
                return
            begin = rows[-1].time + 1
            yield rows, begin
            limit = AT_ONCE

    def _write(self, bucket: StoredBucket, measurement: str, rows: list[Row]) -> None:
        columns: dict[tuple[tuple[tuple[str, str], ...], str], tuple[list[int], list[FieldValue | int]]] = {}
        for row in rows:
            times, values = columns.setdefault((tuple(sorted(row.tags.items())), row.field), ([], []))
            times.append(row.time)
            values.append(row.value)
        batch = self.target.batch(bucket)
        for (tags, field), (times, values) in columns.items():
            batch.add(Series(measurement, tags), field, times, values)
        batch.write()


def everything(measurement: str, bucket: StoredBucket) -> Selection:
    """All points that do not expire at once."""
    kept = time.time_ns() - bucket.retention_seconds * SECOND + MARGIN
    return Selection(
        measurement=measurement,
        start=max(MIN_TIME, kept) if bucket.retention_seconds else MIN_TIME,
        stop=MAX_TIME + 1,
        fields=None,
        tags={},
        aggregate=None,
        window=2**63 - 1,
        limit=2**31 - 1,
    )


def count(store: AnyStore, bucket: StoredBucket, measurement: str) -> int:
    """How many values a measurement has."""
    rows = store.select(bucket, replace(everything(measurement, bucket), aggregate="count"))
    return sum(int(row.value) for row in rows)
