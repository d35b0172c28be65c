r"""InfluxDB's line protocol.

``measurement,tag=value field=72.5,other="text" 1717236000000000000``, one point a line. Names and
tag values escape ``,``, ``=`` and space with a backslash, which anywhere else stands for itself;
strings escape ``"`` and ``\``. ``72`` is a float, ``72i`` and ``72u`` are integers. A string may
hold line breaks. Lines that are empty or begin with ``#`` are passed over.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, cast

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
    """A batch in line protocol, in UTF-8; ``precision`` is the unit of its timestamps in nanoseconds."""

    lines: bytes
    precision: int

    def entries(self) -> Iterator[Entry | Detail]:
        """The points one by one; a line that is none gives what is wrong with it."""
        return parse(self.lines.decode(), self.precision)

    def some_entries(self, described: int, names: dict[int, str]) -> Iterator[Entry | Detail | int]:
        """The same; of bad lines, beyond so many that are ``described``, only how many follow one another.

        ``names`` is given the measurements of those described, by line, as far as they have one.
        """
        return parse_some(self.lines.decode(), self.precision, described, names)


def read_lines(body: bytes, query: LineQuery) -> LineBatch:
    """Read a ``text/plain`` body; the lines themselves are judged later, together with their points."""
    return LineBatch(points=[], bucket=query.bucket, lines=_utf8(body), precision=PRECISIONS[query.precision])


def read_influx_lines(body: bytes, query: InfluxQuery) -> LineBatch:
    """The same as InfluxDB's clients send it."""
    return LineBatch(
        points=[], bucket=query.bucket, org=query.org, lines=_utf8(body), precision=PRECISIONS[query.precision]
    )


def _utf8(body: bytes) -> bytes:
    """The body; raises :class:`Malformed` where it is not UTF-8."""
    try:
        if not body.isascii():
            body.decode()
    except UnicodeDecodeError:
        raise Malformed("The body is not UTF-8") from None
    return body


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

_A_FLOAT = r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?"
_AN_INTEGER = r"[+-]?[0-9]{1,30}i|[0-9]{1,30}u"
_FLOAT = re.compile(_A_FLOAT)
_INTEGER = re.compile(_AN_INTEGER)
_BOOLEANS = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), False),
}
_GOOD_VALUE = rf"(?:{_STRING}|{_A_FLOAT}|{_AN_INTEGER}|{'|'.join(_BOOLEANS)})"
_POINT = re.compile(
    rf"^[ \t\r]*+(?!#){_MEASUREMENT}(?:,{_KEY}={_KEY}){{0,{MAX_TAGS}}} ++"
    rf"(?:{_KEY}={_GOOD_VALUE}{_NEXT}){{1,{MAX_FIELDS}}}(?: ++-?[0-9]{{1,20}})?[ \r]*+(?=\n|\Z)",
    re.DOTALL | re.MULTILINE,
)
"""A line that is a point, save perhaps for a tag that stands twice; to find the next one among any number of others."""
_FIRST_NAME = re.compile(_MEASUREMENT)
LONGEST_NAME = 300
"""Characters of a bad line in which its measurement is looked for."""
_LINE = re.compile(r"^[ \t\r]*+[^ \t\r\n#]", re.MULTILINE)
"""The beginning of a line that is neither empty nor a comment."""
_PIECE = 64 * 1024
"""Characters whose lines are counted at once."""

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
    return cast(Iterator[Entry | Detail], parse_some(text, precision, len(text) + 1))


def parse_some(
    text: str, precision: int, described: int, names: dict[int, str] | None = None
) -> Iterator[Entry | Detail | int]:
    """The same; of bad lines, beyond so many that are ``described``, only how many follow one another.

    ``names`` is given the measurements of those described, by line, as far as they have one.
    """
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
            end = text.find("\n", begin) + 1 or len(text)
            if described > 0:
                described -= 1
                if names is not None and (name := _FIRST_NAME.match(text[begin : begin + LONGEST_NAME])):
                    names[line] = _ESCAPED_MEASUREMENT.sub(r"\1", name[0])
                yield Detail(path=f"/lines/{line}", message=str(problem))
                position = end
            else:
                position = _next_point(text, end)
                yield 1 + _lines_between(text, end, position)


def _next_point(text: str, position: int) -> int:
    """Where the next line begins that is a point, from one that begins at ``position`` on; else the end."""
    found = _POINT.search(text, position)
    return found.start() if found else len(text)


def _lines_between(text: str, begin: int, end: int) -> int:
    """How many lines from one that begins there are neither empty nor a comment."""
    count = 0
    while begin < end:
        stop = min(text.find("\n", begin + _PIECE) + 1 or end, end)
        count += len(_LINE.findall(text, begin, stop))
        begin = stop
    return count


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
