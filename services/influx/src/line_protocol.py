r"""InfluxDB's line protocol.

``measurement,tag=value field=72.5,other="text" 1717236000000000000``, one point a line. Names and
tag values escape ``,``, ``=`` and space with a backslash, which anywhere else stands for itself;
strings escape ``"`` and ``\``. ``72`` is a float, ``72i`` and ``72u`` are integers. A string may
hold line breaks. Lines that are empty or begin with ``#`` are passed over.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from heartguard.errors import Malformed
from heartguard.models.base import UNSET, Query, UnsetType
from heartguard.models.common import Detail
from heartguard.models.timeseries import MAX_FIELDS, MAX_TAGS, BucketName, FieldValue, WriteRequest

PRECISIONS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}

Entry = tuple[int, str, Mapping[str, str], Mapping[str, FieldValue | int], int | None]
"""A point: index (or number of the line), measurement, tags, fields, time in nanoseconds."""


class LineQuery(Query):
    """What the query string says of the lines."""

    bucket: BucketName | UnsetType = UNSET
    precision: Literal["ns", "us", "ms", "s"] = "ns"


class InfluxQuery(Query):
    """The same in InfluxDB's own terms; ``org`` has to be the caller's."""

    bucket: str | UnsetType = UNSET
    org: str | UnsetType = UNSET
    precision: Literal["ns", "us", "ms", "s"] = "ns"


class LineBatch(WriteRequest, kw_only=True):
    """A batch in line protocol; ``precision`` is the unit of its timestamps in nanoseconds."""

    text: str
    precision: int

    def entries(self) -> Iterator[Entry | Detail]:
        """The points one by one; a line that is none gives what is wrong with it."""
        return parse(self.text, self.precision)


def read_lines(body: bytes, query: LineQuery) -> LineBatch:
    """Read a ``text/plain`` body; the lines themselves are judged later, together with their points."""
    return LineBatch(points=[], bucket=query.bucket, text=_text(body), precision=PRECISIONS[query.precision])


def read_influx_lines(body: bytes, query: InfluxQuery) -> LineBatch:
    """The same as InfluxDB's clients send it."""
    return LineBatch(
        points=[], bucket=query.bucket, org=query.org, text=_text(body), precision=PRECISIONS[query.precision]
    )


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("The body is not UTF-8") from None


# Possessive (++ and *+) where a single class repeats, so that a line is read once from left to right. Whole groups
# repeat greedily and up to a bound: Pythons before 3.11.5 get possessive groups wrong, and each turn costs memory.
_MANY = 16_384
"""More escapes in a name than a series key of 64 KiB can hold."""
_MOST_ESCAPES = 65_536

_MEASUREMENT = rf"[^, \n]++(?:(?<=\\)[, ][^, \n]*+){{0,{_MANY}}}(?!(?<=\\)[, ])"
_KEY = rf"[^,= \n]++(?:(?<=\\)[,= ][^,= \n]*+){{0,{_MANY}}}(?!(?<=\\)[,= ])"
_STRING = rf'"[^"\\]*+(?:\\.[^"\\]*+){{0,{_MOST_ESCAPES}}}"'
_VALUE = rf'(?:{_STRING}|[^,= "\r\n]++)'
_TAG = rf",({_KEY})=({_KEY})"
_NEXT = r"(?:,(?=[^ \r\n])|(?=[ \r\n]|\Z))"
_FIELD = rf"({_KEY})=({_VALUE}){_NEXT}"

_GAP = re.compile(r"[ \t\r\n]*+(?:#[^\n]*+\n[ \t\r\n]*+){0,1000}")
_HEAD = re.compile(rf"({_MEASUREMENT})((?:,{_KEY}={_KEY}){{0,{MAX_TAGS}}}) ++", re.DOTALL)
_FIELDS = re.compile(rf"(?:{_KEY}={_VALUE}{_NEXT}){{1,{MAX_FIELDS}}}", re.DOTALL)
_END = re.compile(r"(?: ++(-?[0-9]++))?[ \r]*+(?=\n|\Z)")
_each_tag = re.compile(_TAG).findall
_each_field = re.compile(_FIELD, re.DOTALL).findall

_FLOAT = re.compile(r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?")
_INTEGER = re.compile(r"[+-]?[0-9]{1,30}i|[0-9]{1,30}u")
_BOOLEANS = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), False),
}
_ESCAPED_NAME = re.compile(r"\\([,= ])")
_ESCAPED_MEASUREMENT = re.compile(r"\\([, ])")
_ESCAPED_STRING = re.compile(r'\\(["\\])')
_TO_ESCAPE = re.compile("[,= ]")


class _Bad(Exception):
    """What is wrong with a line."""


def head(measurement: str, tags: Iterable[tuple[str, str]]) -> str:
    """Measurement and tags as they begin a line."""
    parts = [re.sub("[, ]", r"\\\g<0>", measurement)]
    parts += [f"{_TO_ESCAPE.sub(_escape, key)}={_TO_ESCAPE.sub(_escape, value)}" for key, value in tags]
    return ",".join(parts)


def field_head(field: str) -> str:
    """A field's key as it stands in a line."""
    return _TO_ESCAPE.sub(_escape, field)


def _escape(found: re.Match[str]) -> str:
    return "\\" + found[0]


def parse(text: str, precision: int) -> Iterator[Entry | Detail]:
    """The points of ``text``; a bad line gives a :class:`Detail` and the next line is tried. Lines count from 1."""
    heads: dict[str, tuple[str, dict[str, str]]] = {}
    position, line, counted = 0, 1, 0
    while (begin := _skip(text, position)) < len(text):
        line += text.count("\n", counted, begin)
        counted = begin
        try:
            point, position = _point(text, begin, heads)
            measurement, tags, fields, time = point
            yield line, measurement, tags, fields, None if time is None else time * precision
        except _Bad as problem:
            yield Detail(path=f"/lines/{line}", message=str(problem))
            position = text.find("\n", begin)
            if position < 0:
                return


def _skip(text: str, position: int) -> int:
    """Where the next line begins that is neither empty nor a comment."""
    while True:
        found = _GAP.match(text, position)
        assert found is not None
        position = found.end()
        if not text.startswith("#", position):
            return position
        end = text.find("\n", position)
        position = len(text) if end < 0 else end


_Point = tuple[str, dict[str, str], dict[str, FieldValue | int], int | None]


def _point(text: str, begin: int, heads: dict[str, tuple[str, dict[str, str]]]) -> tuple[_Point, int]:
    """The point that begins there, and where its line ends. ``heads`` remembers what was read already."""
    first = _HEAD.match(text, begin)
    if first is None:
        raise _Bad(f"expected measurement[,tag=value...] with at most {MAX_TAGS} tags, a space and fields")
    known = heads.get(first[0])
    if known is None:
        known = _read_head(first[1], first[2])
        if len(heads) < 10_000:
            heads[first[0]] = known
    second = _FIELDS.match(text, first.end())
    if second is None:
        raise _Bad("expected fields: key=value[,key=value...], strings in double quotes")
    fields = {_name(key): _value(value) for key, value in _each_field(second[0])}
    third = _END.match(text, second.end())
    if third is None:
        raise _Bad(f"expected at most {MAX_FIELDS} fields, then a whole number as timestamp, or the end of the line")
    return (*known, fields, _time(third[1])), third.end()


def _read_head(measurement: str, tags: str) -> tuple[str, dict[str, str]]:
    pairs = [(_name(key), _name(value)) for key, value in _each_tag(tags)]
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Bad("a tag key stands twice")
    return _ESCAPED_MEASUREMENT.sub(r"\1", measurement), found


def _name(text: str) -> str:
    return _ESCAPED_NAME.sub(r"\1", text) if "\\" in text else text


def _value(text: str) -> FieldValue | int:
    if text[0] == '"':
        return _ESCAPED_STRING.sub(r"\1", text[1:-1])
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INTEGER.fullmatch(text):
        return int(text[:-1])
    if (truth := _BOOLEANS.get(text)) is not None:
        return truth
    raise _Bad("a field's value is no finite number, integer (72i), boolean or string in double quotes")


def _time(text: str | None) -> int | None:
    if text is None:
        return None
    if len(text) > 20:
        raise _Bad("the timestamp is beyond 64 bits")
    return int(text)
