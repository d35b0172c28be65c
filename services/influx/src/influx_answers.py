"""InfluxDB's answers: annotated CSV, read as it comes in."""

import csv
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from heartguard.models.timeseries import FieldValue
from heartguard.timestamps import parse_time

from .errors import TooManySeries
from .influx_http import InfluxError
from .store import FieldType
from .times import MAX_TIME, format_time

LEADING = 3
"""Columns that come before a table's own: the annotation's, ``result`` and ``table``."""
MAX_SERIES = 50_000
"""That one answer may be made of."""
LOST = "\x0e"
"""Stands for a carriage return in stored strings, which InfluxDB's CSV would drop; no string can hold it itself."""

LAST_STOP = MAX_TIME + 1
_LAST_STOP = format_time(LAST_STOP)

Value = FieldValue | int


def _text(value: str) -> str:
    """A line break comes as CR LF."""
    return value.replace("\r\n", "\n").replace(LOST, "\r") if "\n" in value or LOST in value else value


def _time(text: str) -> int:
    """The stop of the last window lies a nanosecond after the last time that a point can have."""
    return LAST_STOP if text == _LAST_STOP else parse_time(text)


def stored_text(value: str) -> str:
    """A string as it is stored."""
    return value.replace("\r", LOST) if "\r" in value else value


_READERS: dict[str, Callable[[str], Value]] = {
    "double": float,
    "long": int,
    "unsignedLong": int,
    "boolean": "true".__eq__,
    "string": _text,
}
_TYPES: dict[str, FieldType] = {
    "double": "float",
    "long": "integer",
    "unsignedLong": "integer",
    "boolean": "boolean",
    "string": "string",
}


class Found(NamedTuple):
    """A row. ``time`` is in nanoseconds since the epoch; where the table has none, it and ``field`` mean nothing."""

    result: str
    time: int
    field: str
    value: Value
    tags: dict[str, str]
    type: FieldType


class Columns:
    """The columns of the tables that follow a header."""

    def __init__(self, types: list[str], names: list[str], default: str) -> None:
        own = {name: index for index, name in enumerate(names) if index >= LEADING and name.startswith("_")}
        self.default = default
        self.time = own.get("_time")
        self.field = own.get("_field", LEADING)
        self.value = own["_value"]
        self.type = _TYPES[types[self.value]]
        self.read = _READERS[types[self.value]]
        self.tags = [(name, index) for index, name in enumerate(names) if index >= LEADING and not name.startswith("_")]


def read(lines: Iterable[str], *, patient: bool = False) -> Iterator[Found]:
    """The rows of an answer, of any number of series for who is patient.

    Raises :class:`InfluxError` where there is an error in it, or it is not whole.
    """
    try:
        yield from _read(lines, patient=patient)
    except (ValueError, LookupError, csv.Error) as problem:  # a UnicodeDecodeError is a ValueError
        raise InfluxError(200, "", f"the answer cannot be read: {problem!r}"[:500]) from None


def _read(lines: Iterable[str], *, patient: bool) -> Iterator[Found]:
    columns: Columns | None = None
    types: list[str] = []
    default = ""
    tables = 0
    tags: dict[str, str] = {}
    table = ""
    header = True
    rows = csv.reader(lines)
    row: list[str] | None = None
    for row in rows:
        if not row:
            header = True
        elif row[0] == "#datatype":
            types, header = row, True
        elif row[0] == "#default":
            tables = tables if row[1] == default else 0
            default = row[1]
        elif row[-2:] == ["error", "reference"] and len(row) <= LEADING:
            said = next(rows, [""])
            raise InfluxError(200, "", said[len(row) - 2] if len(said) == len(row) else "")
        elif header or columns is None:
            columns, header, table = Columns(types, row, default), False, ""
        else:
            if row[2] != table:
                table = row[2]
                tables += 1
                if tables > MAX_SERIES and not patient:
                    raise TooManySeries(MAX_SERIES)
                tags = {name: row[index] for name, index in columns.tags if row[index]}
            time = 0 if columns.time is None else _time(row[columns.time])
            value = columns.read(row[columns.value])
            yield Found(row[1] or columns.default, time, row[columns.field], value, tags, columns.type)
    if row != []:
        raise ValueError("no empty line ends it")
