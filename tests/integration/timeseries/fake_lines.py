r"""Line protocol as InfluxDB 2 reads it: another reading than the service's own.

In measurement and tags a character counts as escaped where a backslash stands before it; among fields a
backslash takes the next character with it, whatever that is.
"""

import re
from typing import NamedTuple

Value = float | int | bool | str

_FIELD = r'(?:\\.|[^\\=, \n])+=(?:"(?:\\.|[^\\"])*"|[^ ,"\n]+)'
_LINE = re.compile(
    rf"(?P<key>(?:[^ \n]|(?<=\\) )+)\ +(?P<fields>{_FIELD}(?:,{_FIELD})*)(?:\ +(?P<time>-?\d+))?\ *\r?(?=\n|\Z)",
    re.DOTALL,
)
_ONE_FIELD = re.compile(r'((?:\\.|[^\\=, ])+)=("(?:\\.|[^\\"])*"|[^ ,]+)(?:,|\Z)', re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_INTEGER = re.compile(r"[+-]?\d+i")
_TRUE, _FALSE = ("t", "T", "true", "True", "TRUE"), ("f", "F", "false", "False", "FALSE")
FIRST, LAST = -(2**63) + 2, 2**63 - 2


class LineError(Exception):
    """The line cannot be parsed."""


class Point(NamedTuple):
    measurement: str
    tags: tuple[tuple[str, str], ...]
    fields: dict[str, Value]
    time: int | None


def read(text: str, unit: int) -> tuple[list[Point], list[str]]:
    """The points, whose times are in so many nanoseconds; and what is wrong with lines that are none."""
    points, problems, place = [], [], 0
    while place < len(text):
        match = _LINE.match(text, place)
        end = match.end() if match else (text + "\n").index("\n", place)
        line = text[place:end].strip(" \t\r\0")
        if line and not line.startswith("#"):
            try:
                points.append(_point(match, line, unit))
            except LineError as problem:
                problems.append(f"unable to parse '{line}': {problem}")
        place = end + 1
    return points, problems


def _point(match: re.Match[str] | None, line: str, unit: int) -> Point:
    if match is None:
        raise LineError("missing field value" if re.search(r"=( |,|\Z)", line) else "missing fields")
    measurement, *tags = re.split(r"(?<!\\),", match["key"].lstrip(" \t\r\0"))
    pairs = tuple(sorted(map(_pair, tags)))
    if not measurement or len(dict(pairs)) < len(pairs):
        raise LineError("duplicate tags" if measurement else "missing measurement")
    fields = {_unescaped(r'[," =]', key): _value(value) for key, value in _ONE_FIELD.findall(match["fields"])}
    time = int(match["time"]) * unit if match["time"] else None
    if time is not None and not FIRST <= time <= LAST:
        raise LineError(f"time outside range {FIRST} - {LAST}")
    return Point(_unescaped("[, ]", measurement), pairs, fields, time)


def _pair(tag: str) -> tuple[str, str]:
    parts = re.split(r"(?<!\\)=", tag)
    if len(parts) != 2 or not all(parts):
        raise LineError("missing tag value")
    return _unescaped("[,= ]", parts[0]), _unescaped("[,= ]", parts[1])


def _unescaped(which: str, text: str) -> str:
    return re.sub(rf"\\({which})", r"\1", text)


def _value(text: str) -> Value:
    if text.startswith('"'):
        return _unescaped(r'["\\]', text[1:-1])
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INTEGER.fullmatch(text) and -(2**63) <= int(text[:-1]) < 2**63:
        return int(text[:-1])
    if _NUMBER.fullmatch(text) and abs(float(text)) < float("inf"):
        return float(text)
    raise LineError("invalid number")
