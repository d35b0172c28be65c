r"""Line protocol as InfluxDB 2 reads it, from its source: another reading than the service's own.

In measurement and tags a character counts as escaped where a backslash stands before it; among fields a
backslash takes the next character with it, whatever that is.
"""

import re
from typing import NamedTuple

Value = float | int | bool | str

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_INTEGER = re.compile(r"[+-]?\d+i")
_TRUE, _FALSE = ("t", "T", "true", "True", "TRUE"), ("f", "F", "false", "False", "FALSE")


class LineError(Exception):
    """The line cannot be parsed."""


class Point(NamedTuple):
    measurement: str
    tags: tuple[tuple[str, str], ...]
    fields: dict[str, Value]
    time: int | None


def lines(text: str) -> list[str]:
    """The lines, of which strings may hold some more."""
    found, start, i = [], 0, 0
    quoted = fields = False
    equals = commas = 0
    while i < len(text):
        character = text[i]
        if character == "\\" and i + 2 < len(text):
            i += 2
            continue
        if character == " ":
            fields = True
        if fields:
            if not quoted and character == "=":
                equals += 1
            elif not quoted and character == ",":
                commas += 1
            elif character == '"' and equals > commas:
                quoted = not quoted
        if character == "\n" and not quoted:
            found.append(text[start:i])
            start, quoted, fields, equals, commas = i + 1, False, False, 0, 0
        i += 1
    found.append(text[start:])
    stripped = [line.lstrip(" \t\r\0") for line in found]
    return [line for line in stripped if line and not line.startswith("#")]


def parse(line: str) -> Point:
    end = _scan(line, 0, " ")
    key = line[:end]
    begin = end
    while begin < len(line) and line[begin] == " ":
        begin += 1
    end = _fields_end(line, begin)
    time = line[end:].strip()
    if time and not re.fullmatch(r"-?\d+", time):
        raise LineError("bad timestamp")
    measurement, *tags = _split(key, ",")
    if not measurement:
        raise LineError("missing measurement")
    pairs = [_pair(tag) for tag in tags]
    if len({name for name, _ in pairs}) < len(pairs):
        raise LineError("duplicate tags")
    fields = _fields(line[begin:end])
    if not fields:
        raise LineError("missing fields")
    return Point(re.sub(r"\\([, ])", r"\1", measurement), tuple(sorted(pairs)), fields, int(time) if time else None)


def _scan(text: str, start: int, stop: str) -> int:
    """Where ``stop`` stands with no backslash before it."""
    i = start
    while i < len(text) and not (text[i] == stop and (i == 0 or text[i - 1] != "\\")):
        i += 1
    return i


def _split(text: str, separator: str) -> list[str]:
    parts, start = [], 0
    while start <= len(text):
        end = _scan(text, start, separator)
        parts.append(text[start:end])
        start = end + 1
    return parts


def _pair(tag: str) -> tuple[str, str]:
    end = _scan(tag, 0, "=")
    key, value = tag[:end], tag[end + 1 :]
    if not key or not value or _scan(value, 0, "=") < len(value):
        raise LineError("missing tag key or value")
    return re.sub(r"\\([,= ])", r"\1", key), re.sub(r"\\([,= ])", r"\1", value)


def _fields_end(text: str, start: int) -> int:
    i, quoted, equals, commas = start, False, 0, 0
    while i < len(text):
        if text[i] == "\\" and i + 1 < len(text):
            i += 2
            continue
        if text[i] == '"' and equals > commas:
            quoted = not quoted
        elif not quoted:
            if text[i] == "=":
                equals += 1
            elif text[i] == ",":
                commas += 1
            elif text[i] == " ":
                break
        i += 1
    if quoted:
        raise LineError("unbalanced quotes")
    if equals != commas + 1:
        raise LineError("invalid field format")
    return i


def _fields(text: str) -> dict[str, Value]:
    found: dict[str, Value] = {}
    i = 0
    while i < len(text):
        begin = i
        while text[i] != "=":
            i += 2 if text[i] == "\\" else 1
        key = re.sub(r'\\([," =])', r"\1", text[begin:i])
        begin = i = i + 1
        quoted = False
        while i < len(text) and (quoted or text[i] != ","):
            if text[i] == '"':
                quoted = not quoted
            i += 2 if text[i] == "\\" else 1
        if not key:
            raise LineError("missing field key")
        found[key] = _value(text[begin:i])
        i += 1
    return found


def _value(text: str) -> Value:
    if text.startswith('"') and text.endswith('"') and len(text) > 1:
        return re.sub(r'\\(["\\])', r"\1", text[1:-1])
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INTEGER.fullmatch(text):
        value = int(text[:-1])
        if not -(2**63) <= value < 2**63:
            raise LineError("integer out of range")
        return value
    if _NUMBER.fullmatch(text) and abs(float(text)) < float("inf"):
        return float(text)
    raise LineError("invalid field value")
