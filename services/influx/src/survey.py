"""Line protocol looked over in bulk, so that a store which speaks it can be given the very text.

It is for plain text: each line ends with a timestamp, nothing is quoted or escaped, numbers are short enough to be
finite, and lines have few forms. Of anything else there is no survey, and the lines are read one by one.
"""

import re
from collections.abc import Iterator, Set
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple

from heartguard.models.common import Detail

from .line_protocol import Entry, parse
from .points import MAX_SERIES, Rules, series_problems
from .store import TYPES, FieldType
from .tenancy import USER_TAG

MAX_FORMS = 8
LONGEST_REMEMBERED = 512
"""Characters of a beginning of a line that is remembered."""

MAX_DIGITS = 19
"""Of a time that is plain."""
_DIGITS = re.compile("[0-9]+")
_NO_SEPARATORS = bytes({*range(256)} - set(b" \n"))

_VALUES: dict[FieldType, str] = {
    "float": r"-?[0-9]{1,17}(?:\.[0-9]{1,17})?",
    "integer": r"-?[0-9]{1,18}i",
    "boolean": r"(?:true|false|[tTfF])",
}

Form = tuple[tuple[str, FieldType], ...]
"""The fields of a line with their types, in its order."""


class Survey(NamedTuple):
    """What a text holds: how many points, how many values, and the types of fields by measurement."""

    points: int
    values: int
    types: dict[str, dict[str, FieldType]]


def survey(text: str, precision: int, rules: Rules) -> Survey | None:
    """None where the text is not plain, or not all is well: to read it line by line tells what it is."""
    tokens = _tokens(text)
    if not tokens:
        return None
    heads, fields, times = tokens[::3], tokens[1::3], _times(tokens[2::3])
    if not (times and rules.oldest <= min(times) * precision and max(times) * precision <= rules.newest):
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


def _tokens(text: str) -> list[str]:
    """Beginning, fields and time of each line in turn; nothing where a line is not just that."""
    if "\\" in text or '"' in text:
        return []
    text = text.removesuffix("\n")
    lines = text.count("\n") + 1
    if text.encode().translate(None, _NO_SEPARATORS) != (b"  \n" * lines)[:-1]:
        return []
    return text.replace("\n", " ").split(" ")


def _times(texts: list[str]) -> list[int]:
    """Nothing where one is no time, or before 1970, which is rare enough."""
    lengths = set(map(len, texts))
    if min(lengths) < 1 or max(lengths) > MAX_DIGITS or not _DIGITS.fullmatch("".join(texts)):
        return []
    return list(map(int, texts))


def _forms(fields: set[str]) -> Iterator[tuple[Form, set[str] | None]]:
    """The forms that there are, each with the fields that have it, None where all do; at last () for what has none."""
    left = fields
    for _ in range(MAX_FORMS):
        form = _form(next(iter(left)))
        pattern = _pattern(form)
        if pattern is None:
            break
        same = set(filter(pattern.fullmatch, left))
        if not same:
            break
        left = left - same
        yield form, None if len(same) == len(fields) else same
        if not left:
            return
    yield (), left


def _form(fields: str) -> Form:
    point = next(parse(f"m {fields} 0", 1), None)
    if point is None or isinstance(point, Detail):
        return ()
    return tuple((field, TYPES[type(value)]) for field, value in point[3].items())


@lru_cache(maxsize=1024)
def _pattern(form: Form) -> re.Pattern[str] | None:
    if not form or any(kind not in _VALUES for _, kind in form):
        return None
    fields = ",".join(f"{re.escape(field)}={_VALUES[kind]}" for field, kind in form)
    return re.compile(fields)


def _learn(types: dict[str, dict[str, FieldType]], heads: Set[str], form: Form, rules: Rules) -> bool:
    """Note the types of these series; whether they are good ones, and may be written as they are."""
    judge = _judge if max(map(len, heads)) <= LONGEST_REMEMBERED else _judge.__wrapped__
    measurements = set(map(judge, heads, repeat(form), repeat(rules.user_id)))
    for measurement in measurements:
        if measurement is None:
            return False
        known = types.setdefault(measurement, {})
        if any(known.setdefault(field, kind) != kind for field, kind in form):
            return False
    return True


@lru_cache(maxsize=32_768)
def _judge(head: str, form: Form, user_id: str | None) -> str | None:
    """The measurement of a series; None where it is not good, or not the user's."""
    point: Entry | Detail | None = next(parse(f"{head} f=0 0", 1), None)
    if point is None or isinstance(point, Detail):
        return None
    _, measurement, tags, _, _ = point
    if user_id is not None and tags.get(USER_TAG) != user_id:
        return None
    rules = Rules(user_id=user_id, received=0)
    is_good = not any(series_problems(rules.series(measurement, tags), [field for field, _ in form]))
    return measurement if is_good else None
