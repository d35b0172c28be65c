"""The types that fields have in InfluxDB: asked once, then remembered."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from heartguard.errors import Unavailable
from heartguard.logs import log
from heartguard.models.timeseries import FieldValue

from .errors import TooManySeries, TooMuch
from .influx_answers import read
from .influx_client import InfluxClient
from .influx_flux import MEASUREMENTS, TYPES, TYPES_OF_EACH, extern
from .influx_http import InfluxError
from .memory import Memory
from .store import TYPES as TYPE_OF
from .store import BucketGone, FieldType, Selection, StoredBucket, TypeConflict, Types
from .times import MAX_TIME, MIN_TIME

MEASUREMENTS_REMEMBERED = 10_000
MOST_FIELDS = 1_000
"""Of a measurement with more fields nothing is remembered."""


def types_of(columns: Iterable[tuple[str, str, Sequence[FieldValue | int]]]) -> Types:
    """The types of a batch, of whose columns are given measurement, field and values.

    Raises :class:`TypeConflict` where a field has several.
    """
    found: dict[str, dict[str, FieldType]] = {}
    for measurement, field, values in columns:
        fields = found.setdefault(measurement, {})
        for kind in set(map(type, values)):
            if fields.setdefault(field, TYPE_OF[kind]) != TYPE_OF[kind]:
                raise TypeConflict
    return found


@contextmanager
def for_a_write() -> Iterator[None]:
    """What is too much to ask is not the fault of a batch, whose sender would drop it: it shall be sent again."""
    try:
        yield
    except (TooMuch, TooManySeries) as error:
        log.error("influx", error=f"no types of fields for a write: {error.details[0].message}")
        raise Unavailable from None


class KnownTypes:
    """What is known of the types in all buckets; of a measurement that is remembered, all fields were asked for.

    A field cannot change its type as long as its bucket is there, whose id is part of the key.
    """

    def __init__(self, client: InfluxClient) -> None:
        self._client = client
        self._known: Memory[tuple[str, str], Mapping[str, FieldType]] = Memory(MEASUREMENTS_REMEMBERED)

    @for_a_write()
    def check(self, bucket: StoredBucket, given: Types) -> None:
        """Raises :class:`TypeConflict` where a field is stored with another type."""
        for measurement, fields in given.items():
            known = self.of(bucket, measurement)
            unknown = fields.keys() - known.keys()
            if unknown:  # new fields, or such that another process has made since
                known = {**known, **self._ask(bucket, _selection(measurement, unknown))}
            if _conflicts(known, fields):  # the bucket may have been dropped and made anew since
                self.forget(bucket, [measurement])
                if _conflicts(self.of(bucket, measurement), fields):
                    raise TypeConflict

    def learn(self, bucket: StoredBucket, given: Types) -> None:
        """Remember what was written."""
        for measurement, fields in given.items():
            known = self._known.get((bucket.id, measurement))
            if known is not None and not fields.keys() <= known.keys():
                self._keep(bucket, measurement, {**known, **fields})

    def of(self, bucket: StoredBucket, measurement: str) -> Mapping[str, FieldType]:
        """The types of all of a measurement's fields. Raises :class:`BucketGone`."""
        known = self._known.get((bucket.id, measurement))
        if known is None:
            known = self._ask(bucket, _selection(measurement, None))
            self._keep(bucket, measurement, known)
        return known

    def among(self, bucket: StoredBucket, selection: Selection) -> Mapping[str, FieldType]:
        """The types of those fields that a selection means, at any time.

        Of a field with two types InfluxDB shows that of the earliest shard alone, and so nothing of series that have
        the other one: then those within the selection's range are asked for.
        """
        everything = _selection(selection.measurement, selection.fields, selection.tags)
        within = replace(everything, start=selection.start, stop=selection.stop)
        return self._ask(bucket, everything) or self._ask(bucket, within)

    def measurements(self, bucket: StoredBucket) -> list[str]:
        """The names of all that have points."""
        found = read(self._client.query(MEASUREMENTS, extern(bucket.name, _selection("", None))))
        return sorted(str(one.value) for one in found)

    def forget(self, bucket: StoredBucket, measurements: Iterable[str]) -> None:
        for measurement in measurements:
            self._known.forget((bucket.id, measurement))

    def _keep(self, bucket: StoredBucket, measurement: str, types: Mapping[str, FieldType]) -> None:
        if len(types) <= MOST_FIELDS:
            self._known.keep([((bucket.id, measurement), types)])
        else:
            self.forget(bucket, [measurement])

    def _ask(self, bucket: StoredBucket, selection: Selection) -> dict[str, FieldType]:
        asked = extern(bucket.name, selection)
        try:
            return {found.field: found.type for found in read(self._client.query(TYPES, asked))}
        except InfluxError as error:
            if error.is_missing:
                raise BucketGone from None
        # Two processes may have given a field two types at the same moment, at times that lie far apart.
        try:
            return {found.field: found.type for found in read(self._client.query(TYPES_OF_EACH, asked))}
        except InfluxError as error:
            if error.is_missing:
                raise BucketGone from None
            raise


def _conflicts(known: Mapping[str, FieldType], given: Mapping[str, FieldType]) -> bool:
    return any(known.get(field, kind) != kind for field, kind in given.items())


def _selection(measurement: str, fields: Collection[str] | None, tags: Mapping[str, str] | None = None) -> Selection:
    return Selection(
        measurement=measurement,
        start=MIN_TIME,
        stop=MAX_TIME + 1,
        fields=fields,
        tags=tags or {},
        aggregate=None,
        window=1,
        limit=1,
    )
