"""Line protocol looked over in bulk, so that a store which speaks it can be given the very text.

It is for plain text: each line ends with a timestamp, nothing is quoted or escaped, numbers are short enough to be
finite, and lines have few forms. Of anything else there is no survey, and the lines are read one by one.
"""

import re
from collections.abc import Iterator, Set
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from heartguard.models.common import Detail

from .line_protocol import Entry, parse
from .points import MAX_SERIES, Rules, field_problem, head_problems, is_short
from .store import TYPES, FieldType, Series
from .tenancy import USER_TAG

MAX_FORMS = 8
LONGEST_REMEMBERED = 512
"""Bytes of a beginning of a line that is remembered."""
REMEMBERED = 32_768

MAX_DIGITS = 19
"""Of a time that is plain."""
_NO_SEPARATORS = bytes({*range(256)} - set(b" \t\n\v\f\r"))
_DIGITS_ALIKE = bytes.maketrans(b"123456789", b"000000000")

_VALUES: dict[FieldType, bytes] = {
    "float": rb"-?[0-9]{1,17}(?:\.[0-9]{1,17})?",
    "integer": rb"-?[0-9]{1,18}i",
    "boolean": rb"(?:true|false|[tTfF])",
}

Form = tuple[tuple[str, FieldType], ...]
"""The fields of a line with their types, in its order."""


class Survey(NamedTuple):
    """What a text holds: how many points, how many values, and the types of fields by measurement."""

    points: int
    values: int
    types: dict[str, dict[str, FieldType]]


class Head(NamedTuple):
    """What a good beginning of a line says: its measurement and, if there is one, its user."""

    measurement: str
    user_id: str | None


_heads: dict[bytes, Head] = {}
"""Those that were found to be good, whatever the fields: devices send the same again and again."""


def survey(lines: bytes, precision: int, rules: Rules) -> Survey | None:
    """None where the text is not plain, or not all is well: to read it line by line tells what it is."""
    tokens = _tokens(lines)
    heads, fields, times = tokens[::3], tokens[1::3], tokens[2::3]
    span = _span(times)
    if span is None or not rules.oldest <= span[0] * precision <= span[1] * precision <= rules.newest:
        return None
    values = 0
    types: dict[str, dict[str, FieldType]] = {}
    for form, same in _forms(set(fields)):
        if not form:
            return None
        those = heads if same is None else [head for head, field in zip(heads, fields, strict=True) if field in same]
        series = set(those)
        if len(series) > MAX_SERIES or not _learn(types, series, form, rules):
            return None
        values += len(those) * len(form)
    return Survey(len(times), values, types)


def _tokens(lines: bytes) -> list[bytes]:
    """Beginning, fields and time of each line in turn; nothing where a line is not just that."""
    if b"\\" in lines or b'"' in lines:
        return []
    separators = lines.translate(None, _NO_SEPARATORS).removesuffix(b"\n")
    count = len(separators) // 3 + 1
    if separators != (b"  \n" * count)[:-1]:
        return []
    tokens = lines.split()
    return tokens if len(tokens) == 3 * count else []


def _span(times: list[bytes]) -> tuple[int, int] | None:
    """The first and the last; None where one is no time, or before 1970, which is rare enough."""
    lengths = set(map(len, times))
    if not times or max(lengths) > MAX_DIGITS or not b"".join(times).isdigit():
        return None
    if len(lengths) == 1:  # then they are in order as they are as texts
        return int(min(times)), int(max(times))
    numbers = list(map(int, times))
    return min(numbers), max(numbers)


def _forms(fields: set[bytes]) -> Iterator[tuple[Form, set[bytes] | None]]:
    """The forms that there are, each with the fields that have it, None where all do; at last () for what has none."""
    left = fields
    for _ in range(MAX_FORMS):
        form = _form(next(iter(left)))
        pattern = _pattern(form)
        if pattern is None:
            break
        same = _alike(left, pattern, form)
        if not same:
            break
        left = left - same
        yield form, None if len(same) == len(fields) else same
        if not left:
            return
    yield (), left


def _form(fields: bytes) -> Form:
    point = next(parse(f"m {fields.decode()} 0", 1), None)
    if point is None or isinstance(point, Detail):
        return ()
    return tuple((field, TYPES[type(value)]) for field, value in point[3].items())


@lru_cache(maxsize=1024)
def _pattern(form: Form) -> re.Pattern[bytes] | None:
    """What fields of a good form are like; None where it is none."""
    if not form or any(kind not in _VALUES or field_problem(field) for field, kind in form):
        return None
    return re.compile(b",".join(re.escape(field.encode()) + b"=" + _VALUES[kind] for field, kind in form))


def _alike(fields: set[bytes], pattern: re.Pattern[bytes], form: Form) -> set[bytes]:
    """Those that have the form. Where no digit stands in its names, fields that differ in digits only are one to it."""
    if not any(map(_has_digit, (field for field, _ in form))):
        kinds = set(b"\n".join(fields).translate(_DIGITS_ALIKE).split(b"\n"))
        if all(map(pattern.fullmatch, kinds)):
            return fields
    return set(filter(pattern.fullmatch, fields))


_has_digit = re.compile("[0-9]").search


def _learn(types: dict[str, dict[str, FieldType]], heads: Set[bytes], form: Form, rules: Rules) -> bool:
    """Note the types of these series; whether they are good ones, and may be written as they are."""
    found = _judged(heads)
    if not found or (rules.user_id is not None and set(map(_user_id, found)) != {rules.user_id}):
        return False
    for measurement in set(map(_measurement, found)):
        known = types.setdefault(measurement, {})
        if any(known.setdefault(field, kind) != kind for field, kind in form):
            return False
    return True


_measurement, _user_id = itemgetter(0), itemgetter(1)


def _judged(heads: Set[bytes]) -> list[Head]:
    """What these heads say; nothing where one is not good."""
    try:
        return list(map(_heads.__getitem__, heads))
    except KeyError:
        pass
    found = []
    for text in heads:
        head = _heads.get(text) or _judge(text.decode())
        if head is None:
            return []
        found.append(head)
        if len(text) <= LONGEST_REMEMBERED:
            if len(_heads) >= REMEMBERED:
                _heads.clear()
            _heads[text] = head
    return found


def _judge(head: str) -> Head | None:
    """None where it is not good, or so long that this would depend on the fields."""
    point: Entry | Detail | None = next(parse(f"{head} f=0 0", 1), None)
    if point is None or isinstance(point, Detail):
        return None
    _, measurement, tags, _, _ = point
    series = Series(measurement, tuple(sorted(tags.items())))
    if not is_short(series) or any(head_problems(series)):
        return None
    return Head(measurement, tags.get(USER_TAG))
