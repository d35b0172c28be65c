"""Writing points to PostgreSQL: one COPY into a temporary table, one upsert from there.

Concurrent batches take their locks in the same order (fields, series, points, each by key), so
they wait for each other but never in a circle.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import psycopg
from sqlalchemy import BindParameter, Connection, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import LargeBinary, Text

from heartguard.database import Database
from heartguard.errors import Unavailable
from heartguard.models.timeseries import FieldValue

from .memory import Memory
from .store import TYPES, BucketGone, Series, StoredBucket, TypeConflict

KnownSeries = Memory[tuple[str, bytes], tuple[int, type]]
"""Id and type of a series, by bucket and digest."""

# ts and value_float come last: in a batch of floats all that precedes them is the same for the whole series.
INCOMING = """
CREATE TEMPORARY TABLE incoming (
    value_int bigint, value_bool boolean, value_text text, series_id bigint, ts bigint, value_float double precision
) ON COMMIT DELETE ROWS
"""


def _texts(name: str) -> BindParameter[Any]:
    return bindparam(name, type_=ARRAY(Text))


def _digests() -> BindParameter[Any]:
    return bindparam("digests", type_=ARRAY(LargeBinary))


_HOLD = text("SELECT 1 FROM heartguard_core.buckets WHERE id = :bucket AND org_id = :org FOR KEY SHARE")

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

_COPY = "COPY pg_temp.incoming FROM STDIN (FORMAT binary)"
_EMPTY = text("TRUNCATE pg_temp.incoming")
_UPSERT = text("""
    INSERT INTO heartguard_core.points (bucket_id, series_id, ts, value_float, value_int, value_bool, value_text)
    SELECT :bucket, series_id, ts, value_float, value_int, value_bool, value_text
    FROM pg_temp.incoming ORDER BY series_id, ts
    ON CONFLICT (bucket_id, series_id, ts) DO UPDATE SET
        value_float = excluded.value_float, value_int = excluded.value_int,
        value_bool = excluded.value_bool, value_text = excluded.value_text
""")

CHECK_VIOLATION = "23514"
CHUNK = 100_000
"""Rows sent at a time. A batch has more only in line protocol."""


class Slot:
    """The values that a batch holds of one series (of one field); the later of two at the same time wins."""

    __slots__ = ("digest", "field", "id", "kind", "rows", "series")

    def __init__(self, series: Series, field: str, kind: type) -> None:
        self.series = series
        self.field = field
        self.kind = kind
        self.digest = hashlib.sha256(msgspec.json.encode((series.measurement, series.tags, field))).digest()
        self.id = 0
        self.rows: dict[int, Any] = {}

    @property
    def key(self) -> tuple[str, str]:
        return self.series.measurement, self.field


class PostgresBatch:
    """Implements :class:`.store.Batch`. ``forget`` is called where the bucket is gone."""

    def __init__(
        self, database: Database, bucket: StoredBucket, known: KnownSeries, forget: Callable[[], None]
    ) -> None:
        self._database = database
        self._bucket = bucket
        self._known = known
        self._forget = forget
        self._slots: dict[tuple[Series, str], Slot] = {}
        self._kinds: dict[tuple[str, str], type] = {}
        self._mixed = False

    def add(self, series: Series, field: str, times: Sequence[int], values: Sequence[FieldValue | int]) -> None:
        kinds = set(map(type, values))
        slot = self._slots.get((series, field))
        if slot is None:
            slot = self._slots[series, field] = self._slot(series, field, type(values[0]))
        self._mixed |= kinds != {slot.kind}
        slot.rows.update(zip(times, values, strict=True))

    def write(self) -> None:
        if self._mixed:
            raise TypeConflict
        slots = list(self._slots.values())
        fresh = [slot for slot in slots if not slot.id]
        try:
            self._write(slots, fresh)
        except IntegrityError as error:
            # A partition for rows on their way to the default one was made in that moment: now they find it.
            if getattr(error.orig, "sqlstate", None) != CHECK_VIOLATION:
                raise
            self._write(slots, fresh)
        self._known.keep(((self._bucket.id, slot.digest), (slot.id, slot.kind)) for slot in fresh)

    def _slot(self, series: Series, field: str, kind: type) -> Slot:
        slot = Slot(series, field, kind)
        if self._kinds.setdefault(slot.key, kind) is not kind:
            self._mixed = True
        if known := self._known.get((self._bucket.id, slot.digest)):
            slot.id, stored = known
            self._mixed |= stored is not kind
        return slot

    def _write(self, slots: list[Slot], fresh: list[Slot]) -> None:
        bucket = int(self._bucket.id)
        with self._database.transaction(self._bucket.org_id) as connection:
            if connection.execute(_HOLD, {"bucket": bucket, "org": self._bucket.org_id}).one_or_none() is None:
                self._forget()
                raise BucketGone
            if fresh:
                register(connection, bucket, fresh)
            for number, rows in enumerate(chunks(slots)):
                if number:
                    connection.execute(_EMPTY)
                copy(connection, rows)
                connection.execute(_UPSERT, {"bucket": bucket})


def register(connection: Connection, bucket: int, slots: list[Slot]) -> None:
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
    by_digest = {slot.digest: slot for slot in sorted(slots, key=lambda slot: slot.digest)}
    series = {
        "bucket": bucket,
        "digests": list(by_digest),
        "measurements": [slot.series.measurement for slot in by_digest.values()],
        "fields": [slot.field for slot in by_digest.values()],
        "tags": [msgspec.json.encode(dict(slot.series.tags)).decode() for slot in by_digest.values()],
    }
    connection.execute(_ADD_SERIES, series)
    for row in connection.execute(_GET_SERIES, {"bucket": bucket, "digests": list(by_digest)}):
        by_digest[bytes(row.digest)].id = row.id


def copy(connection: Connection, rows: bytes) -> None:
    """Send rows in the binary format to the temporary table."""
    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(_COPY) as stream:
            stream.write(rows)
    except psycopg.OperationalError as error:
        raise Unavailable from error


# PostgreSQL's binary format: each row its number of columns, each column its length (-1 is NULL) and bytes.
_BEGIN = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
_END = struct.pack("!h", -1)
_FLOAT_SERIES = struct.Struct("!hiiiiqi")
_FLOAT = struct.Struct("!qid")
_INT = struct.Struct("!hiqiiiqiqi")
_BOOL = struct.Struct("!hii?iiqiqi")
_TEXT_LENGTH = struct.Struct("!hiii")
_TEXT_SERIES = struct.Struct("!iqiqi")


def chunks(slots: list[Slot]) -> Iterator[bytes]:
    """All values, by series and time, in pieces of which the database makes short work."""
    parts, room = [_BEGIN], CHUNK
    for slot in sorted(slots, key=lambda slot: slot.id):
        encode, rows = _ENCODERS[slot.kind], sorted(slot.rows.items())
        while len(rows) > room:
            yield b"".join([*parts, encode(slot.id, rows[:room]) if room else b"", _END])
            parts, rows, room = [_BEGIN], rows[room:], CHUNK
        parts.append(encode(slot.id, rows))
        room -= len(rows)
    yield b"".join([*parts, _END])


def _floats(series: int, rows: list[tuple[int, Any]]) -> bytes:
    before = _FLOAT_SERIES.pack(6, -1, -1, -1, 8, series, 8)
    pack = _FLOAT.pack
    return before + before.join([pack(time, 8, value) for time, value in rows])


def _integers(series: int, rows: list[tuple[int, Any]]) -> bytes:
    return b"".join([_INT.pack(6, 8, value, -1, -1, 8, series, 8, time, -1) for time, value in rows])


def _booleans(series: int, rows: list[tuple[int, Any]]) -> bytes:
    return b"".join([_BOOL.pack(6, -1, 1, value, -1, 8, series, 8, time, -1) for time, value in rows])


def _strings(series: int, rows: list[tuple[int, Any]]) -> bytes:
    parts: list[bytes] = []
    for time, value in rows:
        encoded = value.encode()
        parts += _TEXT_LENGTH.pack(6, -1, -1, len(encoded)), encoded, _TEXT_SERIES.pack(8, series, 8, time, -1)
    return b"".join(parts)


_ENCODERS: Mapping[type, Callable[[int, list[tuple[int, Any]]], bytes]] = {
    float: _floats,
    int: _integers,
    bool: _booleans,
    str: _strings,
}
