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
from .errors import TooMuch
from .influx_store import InfluxStore
from .settings import StoreSettings
from .store import BucketGone, Row, Selection, Series, StoredBucket, TypeConflict
from .stores import open_store
from .times import MAX_TIME, MAX_WINDOW, MIN_TIME

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
        said = "; ".join(detail.message for detail in error.details) or error.message
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

    def total(self) -> int | None:
        """How many values there are in the source; None where a measurement has too many to be counted at once."""
        try:
            return sum(
                _count(self.source, bucket, _counting(bucket, measurement))
                for bucket in self.buckets()
                for measurement in self.source.measurements(bucket)
            )
        except TooMuch:
            return None

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
        whole = everything(measurement, bucket)
        begin = max(begin, whole.start)
        span, limit = whole.stop - begin, AT_ONCE
        while begin < whole.stop:
            end = min(begin + span, whole.stop)
            try:
                rows = list(self.source.select(bucket, replace(whole, start=begin, stop=end, limit=limit)))
            except TooMuch:
                if limit > whole.limit:
                    raise
                span, limit = max(span // 2, 1), limit if span > 1 else limit * 2
                continue
            if len(rows) == limit:  # there may be more of the last time
                end = rows[-1].time
                rows = [row for row in rows if row.time < end]
                if not rows:
                    limit *= 2
                    continue
            if rows:
                yield rows, rows[-1].time + 1
            if len(rows) <= AT_ONCE // 2:
                span *= 2
            begin, limit = end, AT_ONCE

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
        window=MAX_WINDOW,
        limit=2**31 - 1,
        patient=True,
    )


def count(store: AnyStore, bucket: StoredBucket, measurement: str) -> int:
    """How many values a measurement has."""
    return _count_in_halves(store, bucket, _counting(bucket, measurement))


def _counting(bucket: StoredBucket, measurement: str) -> Selection:
    return replace(everything(measurement, bucket), aggregate="count")


def _count(store: AnyStore, bucket: StoredBucket, selection: Selection) -> int:
    return sum(int(row.value) for row in store.select(bucket, selection))


def _count_in_halves(store: AnyStore, bucket: StoredBucket, selection: Selection) -> int:
    """The same of a range that may be too much to be counted at once."""
    middle = (selection.start + selection.stop) // 2
    try:
        return _count(store, bucket, selection)
    except TooMuch:
        if middle == selection.start:
            raise
    halves = replace(selection, stop=middle), replace(selection, start=middle)
    return sum(_count_in_halves(store, bucket, half) for half in halves)
