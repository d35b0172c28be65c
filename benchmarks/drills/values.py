"""Values of all types that can be made again, and what both stores hold of them, read past the product's own code."""

import csv
import hashlib
import io
import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import psycopg
import urllib3

from heartguard.models.timeseries import FieldValue
from heartguard.timestamps import parse_time

from .points import SECOND

Value = FieldValue | int
Key = tuple[str, str, tuple[tuple[str, str], ...], str]
"""Bucket, measurement, tags and field."""
Digests = dict[Key, tuple[int, str]]
"""How many values each series has, and the SHA-256 of its rows in order of time."""

FLOATS = (0.0, -0.0, 1.7e308, -1.7e308, 5e-324, 1 / 3, 2.0**53 + 2, -1e-9)
INTEGERS = (0, 2**63 - 1, -(2**63), -1, 2**53 + 1)
TEXTS = (
    "",
    " ",
    "sinus rhythm",
    'said "ouch", twice',
    "a\\b\\",
    "line\nbreak",
    "tab\t\r end",
    "größer 🫀 心",
    ",=;'",
    "#datatype",
)
KINDS: dict[str, Callable[[int], Value]] = {
    "float": lambda n: FLOATS[n // 50 % len(FLOATS)] if n % 50 == 0 else n * 7919 % 100_003 / 7,
    "integer": lambda n: INTEGERS[n // 50 % len(INTEGERS)] if n % 50 == 0 else n * 7919 - 50_000,
    "boolean": lambda n: n * 7919 % 13 < 6,
    "string": lambda n: TEXTS[n % len(TEXTS)] + (str(n) if n % 3 else ""),
}


@dataclass(frozen=True)
class Part:
    """Series of a measurement: one for each number below ``series`` and each field, all with the same tags but one."""

    bucket: str
    measurement: str
    fields: dict[str, str]
    """Each with its type."""
    series: int
    points: int
    """Of each series."""
    begin: int
    step: int
    """Between two points, in nanoseconds, more or less."""
    tags: dict[str, str]

    def tags_of(self, number: int) -> tuple[tuple[str, str], ...]:
        return tuple(sorted({**self.tags, "user_id": str(number)}.items()))

    def times(self, number: int) -> "array[int]":
        return array("q", (self.begin + n * self.step + n * 7919 % self.step + number for n in range(self.points)))

    def values(self, number: int, field: str) -> list[Value]:
        value = KINDS[self.fields[field]]
        return [value(n + number * 31) for n in range(self.points)]

    @property
    def size(self) -> int:
        return self.series * len(self.fields) * self.points

    def digests(self) -> Digests:
        found: Digests = {}
        for number in range(self.series):
            times = self.times(number)
            for field in self.fields:
                key = self.bucket, self.measurement, self.tags_of(number), field
                found[key] = digest(zip(times, self.values(number, field), strict=True))
        return found


def parts(org: int, now: int, scale: int) -> list[Part]:
    """5,000 values for each of ``scale``; ``now`` is in seconds since the epoch."""
    default, kept = f"org_{org}", f"org_{org}_kept"
    points = scale * 50
    over_years = 40 * 365 * 86_400 * SECOND // points
    week = (now - 6 * 86_400) * SECOND
    leads = {"lead 1": "integer", "lead 2": "integer"}
    mixed = dict(zip("fibs", KINDS, strict=True))
    return [
        Part(default, "heart_rate", {"bpm": "float"}, 40, points, 0, over_years, {"device": "chest-strap"}),
        Part(default, "ecg", leads, 4, points * 5 // 2, 1_600_000_000 * SECOND, 4_000_000, {}),
        Part(
            default, "Lage, a=b", {"liegt": "boolean"}, 10, points, 1_500_000_000 * SECOND, SECOND, {"Nr, 1": "c d=\\e"}
        ),
        Part(kept, "notes", {"note": "string"}, 10, points, week, SECOND // 10, {"ward": "心 1"}),
        Part(f"{default}_mixed", "all", mixed, 5, points, 946_684_800 * SECOND, 17, {}),
    ]


def digest(rows: Iterable[tuple[int, Value]]) -> tuple[int, str]:
    """Of rows in order of time. The type of a value counts, and the sign of zero."""
    found, count = hashlib.sha256(), 0
    for time, value in rows:
        found.update(f"{time} {value!r}\n".encode())
        count += 1
    return count, found.hexdigest()


_ROWS = """
    SELECT b.name, s.measurement, s.tags, s.field, s.id, p.ts, p.value_float, p.value_int, p.value_bool, p.value_text
    FROM heartguard_core.points p
    JOIN heartguard_core.buckets b ON b.id = p.bucket_id JOIN heartguard_core.series s ON s.id = p.series_id
    ORDER BY p.series_id, p.ts
"""


def in_postgres(superuser_url: str) -> Digests:
    found: Digests = {}
    with psycopg.connect(superuser_url) as connection, connection.cursor("rows") as cursor:
        cursor.itersize = 20_000
        cursor.execute(_ROWS)
        for _, rows in groupby(cursor, key=lambda row: row[4]):
            first = next(rows)
            key = first[0], first[1], tuple(sorted(first[2].items())), first[3]
            found[key] = digest((row[5], _only(row[6:])) for row in _again(first, rows))
    return found


def _again(first: Any, rows: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rows


def _only(values: Iterable[Value | None]) -> Value:
    (found,) = (value for value in values if value is not None)
    return found


_RAW = """
    from(bucket: {bucket}) |> range(start: 1900-01-01T00:00:00Z, stop: 2200-01-01T00:00:00Z)
    |> filter(fn: (r) => r._measurement == {measurement}) |> drop(columns: ["_start", "_stop"])
"""
_READERS: dict[str, Callable[[str], Value]] = {
    "double": float,
    "long": int,
    "boolean": "true".__eq__,
    "string": lambda text: text.replace("\r\n", "\n").replace("\x0e", "\r"),
}


def in_influx(url: str, token: str, org: str, measurements: Iterable[tuple[str, str]]) -> Digests:
    """``measurements`` are those to read, each with its bucket."""
    found: Digests = {}
    for bucket, measurement in measurements:
        flux = _RAW.format(bucket=json.dumps(bucket), measurement=json.dumps(measurement, ensure_ascii=False))
        asked = {"query": flux, "type": "flux", "dialect": {"annotations": ["datatype"], "header": True}}
        answer = urllib3.request(
            "POST", f"{url}/api/v2/query?org={org}", json=asked, headers={"Authorization": f"Token {token}"},
            preload_content=False, timeout=600,
        )  # fmt: skip
        assert answer.status == 200, answer.data
        answer.auto_close = False  # type: ignore[attr-defined]
        text = io.TextIOWrapper(io.BufferedReader(answer, 1 << 20), encoding="utf-8", newline="")
        for key, rows in groupby(_rows(text), key=lambda row: row[0]):
            found[bucket, measurement, *key] = digest(sorted((time, value) for _, time, value in rows))
    return found


def _rows(text: Iterable[str]) -> Iterator[tuple[tuple[tuple[tuple[str, str], ...], str], int, Value]]:
    """Tags and field, time, value."""
    types: list[str] = []
    names: list[str] = []
    for row in csv.reader(text):
        if not row:
            names = []
        elif row[0] == "#datatype":
            types, names = row, []
        elif not names:
            names = row
            time, value, field = (names.index(name) for name in ("_time", "_value", "_field"))
            tags = [(name, at) for at, name in enumerate(names) if at > 2 and not name.startswith("_")]
        else:
            key = tuple(sorted((name, row[at]) for name, at in tags if row[at])), row[field]
            yield key, parse_time(row[time]), _READERS[types[value]](row[value])
