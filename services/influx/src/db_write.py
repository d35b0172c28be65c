"""Writing points to PostgreSQL: by COPY into their partition or, by way of a temporary table, by upsert.

Concurrent batches take their locks in the same order (fields, series, points by kind and key), so
they wait for each other but never in a circle.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import sql
from sqlalchemy import BindParameter, Connection, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import LargeBinary, Text

from heartguard import audit
from heartguard.database import Database
from heartguard.errors import Unavailable
from heartguard.models.timeseries import FieldValue

from .copying import Strand, portions, rows
from .slots import Key, Known, KnownSeries, Slot
from .store import TYPES, BucketGone, Series, StoredBucket, TypeConflict, told

INCOMING = """
CREATE TEMPORARY TABLE incoming (
    bucket_id bigint, series_id bigint, ts bigint,
    value_float double precision, value_int bigint, value_bool boolean, value_text text
) ON COMMIT DELETE ROWS
"""


def _texts(name: str) -> BindParameter[Any]:
    return bindparam(name, type_=ARRAY(Text))


def _digests() -> BindParameter[Any]:
    return bindparam("digests", type_=ARRAY(LargeBinary))


_HOLD = text("SELECT series_epoch FROM heartguard_core.buckets WHERE id = :bucket AND org_id = :org FOR KEY SHARE")

_ADD_FIELDS = text("""
    INSERT INTO heartguard_core.fields (bucket_id, measurement, field, type)
    SELECT :bucket, m, f, t FROM unnest(:measurements, :fields, :types) AS new(m, f, t)
    ON CONFLICT DO NOTHING
""").bindparams(_texts("measurements"), _texts("fields"), _texts("types"))
_GET_TYPES = text("""
    SELECT f.measurement, f.field, f.type FROM heartguard_core.fields f
    JOIN unnest(:measurements, :fields) AS new(m, f) ON f.measurement = new.m AND f.field = new.f
    WHERE f.bucket_id = :bucket
""").bindparams(_texts("measurements"), _texts("fields"))
_ADD_SERIES = text("""
    INSERT INTO heartguard_core.series (bucket_id, digest, measurement, field, tags)
    SELECT :bucket, d, m, f, t::jsonb FROM unnest(:digests, :measurements, :fields, :tags) AS new(d, m, f, t)
    ON CONFLICT (bucket_id, digest) DO NOTHING
""").bindparams(_digests(), _texts("measurements"), _texts("fields"), _texts("tags"))
_GET_SERIES = text("""
    SELECT digest, id FROM heartguard_core.series WHERE bucket_id = :bucket AND digest = ANY(:digests)
""").bindparams(_digests())

_VALUES = {float: "value_float", int: "value_int", bool: "value_bool", str: "value_text"}
_COPY = sql.SQL("COPY {} (bucket_id, series_id, ts, {}) FROM STDIN (FORMAT binary)")
_INCOMING = sql.Identifier("pg_temp", "incoming")
_EMPTY = text("TRUNCATE pg_temp.incoming")
_UPSERT = text("""
    INSERT INTO heartguard_core.points (bucket_id, series_id, ts, value_float, value_int, value_bool, value_text)
    SELECT bucket_id, series_id, ts, value_float, value_int, value_bool, value_text
    FROM pg_temp.incoming ORDER BY series_id, ts
    ON CONFLICT (bucket_id, series_id, ts) DO UPDATE SET
        value_float = excluded.value_float, value_int = excluded.value_int,
        value_bool = excluded.value_bool, value_text = excluded.value_text
""")

CHUNK = 100_000
"""Rows sent at a time. A batch has more only in line protocol."""


class _Refused(Exception):
    """The database would not take the rows as they are."""


class PostgresBatch:
    """Implements :class:`.store.Batch`. ``forget`` is called where the bucket is gone."""

    def __init__(
        self, database: Database, bucket: StoredBucket, known: KnownSeries, forget: Callable[[], None]
    ) -> None:
        self._database = database
        self._bucket = bucket
        self._known = known
        self._forget = forget
        self._slots: dict[tuple[bytes, str], Slot] = {}
        self._mixed = False
        self._left_out = 0

    def add(self, series: Series, field: str, times: Sequence[int], values: Sequence[FieldValue | int]) -> None:
        kinds = set(map(type, values))
        slot = self._slots.get((series.key, field))
        if slot is None:
            slot = self._slots[series.key, field] = Slot(series, field, type(values[0]))
        self._mixed |= kinds != {slot.kind}
        slot.times += times
        slot.values += values

    def write(self, left_out: int = 0) -> None:
        """Most batches only add points: those are copied straight into their partition, at a third of the cost.

        Which batches these are need not be known for sure: the primary key refuses whatever is there already.
        """
        slots = list(self._slots.values())
        self._left_out = left_out
        self._recall(slots)
        for slot in slots:
            slot.settle()
        appended = all(slot.is_apart() for slot in slots) and self._succeeds(slots, append)
        # A partition for rows on their way to the default one may be made in that moment: then they find it.
        if not appended and not self._succeeds(slots, upsert):
            self._write(slots, upsert)
        for slot in slots:
            slot.stored.wrote(slot.times[0], slot.times[-1])

    def _recall(self, slots: list[Slot]) -> None:
        """Give the slots what is known of their series. Raises :class:`TypeConflict` where that does not fit."""
        kinds: dict[tuple[str, str], type] = {}
        for slot, known in zip(slots, self._known.get_all([*map(self._key, slots)]), strict=True):
            slot.known = known
            if kinds.setdefault(slot.key, slot.kind) is not slot.kind or (known and known.kind is not slot.kind):
                raise TypeConflict
        if self._mixed:
            raise TypeConflict

    def _key(self, slot: Slot) -> Key:
        return self._bucket.id, slot.series.key, slot.field

    def _succeeds(self, slots: list[Slot], store: Callable[[Connection, int, list[Strand]], None]) -> bool:
        try:
            self._write(slots, store)
        except (_Refused, IntegrityError):
            return False
        return True

    def _write(self, slots: list[Slot], store: Callable[[Connection, int, list[Strand]], None]) -> None:
        bucket = int(self._bucket.id)
        fresh: list[Slot] = []
        try:
            with self._database.transaction(self._bucket.org_id) as connection:
                epoch = connection.execute(_HOLD, {"bucket": bucket, "org": self._bucket.org_id}).scalar_one_or_none()
                if epoch is None:
                    self._forget()
                    raise BucketGone
                fresh = [slot for slot in slots if slot.known is None or slot.known.epoch != epoch]
                if fresh:
                    register(connection, bucket, epoch, fresh)
                store(connection, bucket, [slot.strand() for slot in slots])
                values = sum(len(slot.times) for slot in slots)
                audit.record(connection, bucket=self._bucket.name, values=values, **told(self._left_out))
        except BaseException:
            for slot in fresh:
                slot.known = None  # its id was rolled back
            raise
        self._known.keep((self._key(slot), slot.stored) for slot in fresh)


def register(connection: Connection, bucket: int, epoch: int, slots: list[Slot]) -> None:
    """Give the slots their ids, and make sure of their fields' types. Raises :class:`TypeConflict`.

    A type that another transaction is about to register is waited for.
    """
    kinds = dict(sorted({slot.key: TYPES[slot.kind] for slot in slots}.items()))
    fields = {
        "bucket": bucket,
        "measurements": [measurement for measurement, _ in kinds],
        "fields": [field for _, field in kinds],
    }
    connection.execute(_ADD_FIELDS, {**fields, "types": list(kinds.values())})
    stored = {(row.measurement, row.field): row.type for row in connection.execute(_GET_TYPES, fields)}
    if stored != kinds:
        raise TypeConflict
    by_digest = dict(sorted((slot.digest(), slot) for slot in slots))
    series = {
        "bucket": bucket,
        "digests": list(by_digest),
        "measurements": [slot.series.measurement for slot in by_digest.values()],
        "fields": [slot.field for slot in by_digest.values()],
        "tags": [msgspec.json.encode(dict(slot.series.tags)).decode() for slot in by_digest.values()],
    }
    connection.execute(_ADD_SERIES, series)
    for row in connection.execute(_GET_SERIES, {"bucket": bucket, "digests": list(by_digest)}):
        slot = by_digest[bytes(row.digest)]
        slot.known = Known(row.id, slot.kind, epoch)


def append(connection: Connection, bucket: int, strands: list[Strand]) -> None:
    """Raises :class:`_Refused` where a point of the same series and time is there already.

    Into the bucket's partition: PostgreSQL copies nothing into a table with row-level security.
    """
    partition = sql.Identifier("heartguard_core", f"points_{bucket}")
    for portion in portions(strands, CHUNK):
        copy(connection, partition, portion[0].kind, rows(bucket, portion))


def upsert(connection: Connection, bucket: int, strands: list[Strand]) -> None:
    """Replaces points of the same series and time."""
    for number, portion in enumerate(portions(strands, CHUNK)):
        if number:
            connection.execute(_EMPTY)
        copy(connection, _INCOMING, portion[0].kind, rows(bucket, portion))
        connection.execute(_UPSERT)


def copy(connection: Connection, table: sql.Identifier, kind: type, data: bytes) -> None:
    """Send rows in the binary format, their values being of a kind."""
    statement = _COPY.format(table, sql.Identifier(_VALUES[kind]))
    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as stream:
            stream.write(data)
    except (psycopg.IntegrityError, psycopg.errors.DeadlockDetected) as error:
        raise _Refused from error
    except psycopg.OperationalError as error:
        raise Unavailable from error
