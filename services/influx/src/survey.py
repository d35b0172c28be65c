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
from .times import MAX_TIME

MAX_FORMS = 8
LONGEST_REMEMBERED = 512
"""Characters of a beginning of a line that is remembered."""

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
    if "\\" in text or '"' in text:
        return None
    points = values = 0
    types: dict[str, dict[str, FieldType]] = {}
    for form, found in _lines(text):
        all_heads, all_times = zip(*found, strict=True)
        heads, times = set(all_heads), list(map(int, all_times))
        if not (rules.oldest <= min(times) * precision and max(times) * precision <= MAX_TIME):
            return None
        if len(heads) > MAX_SERIES or not _learn(types, heads, form, rules):
            return None
        points += len(times)
        values += len(times) * len(form)
    return Survey(points, values, types) if points else None


def _lines(text: str) -> Iterator[tuple[Form, list[tuple[str, str]]]]:
    """The lines form by form, each with its beginning and its time; at last a bad one, where some are left over."""
    for _ in range(MAX_FORMS):
        form = _form(text[: text.find("\n") + 1] or text)
        pattern = _pattern(form) if form else None
        found = pattern.findall(text) if pattern else []
        if pattern is None or not found:
            break
        yield form, found
        if len(found) == text.count("\n") + (not text.endswith("\n")):
            return
        text = pattern.sub("", text).lstrip("\n")
        if not text:
            return
    yield (), [("", "9" * 30)]


def _form(line: str) -> Form:
    point = next(parse(line, 1), None)
    if point is None or isinstance(point, Detail):
        return ()
    return tuple((field, TYPES[type(value)]) for field, value in point[3].items())


@lru_cache(maxsize=1024)
def _pattern(form: Form) -> re.Pattern[str] | None:
    if any(kind not in _VALUES for _, kind in form):
        return None
    fields = ",".join(f"{re.escape(field)}={_VALUES[kind]}" for field, kind in form)
    return re.compile(rf"^([^ \n#][^ \n]*+) {fields} (-?[0-9]{{1,19}})$\n?", re.MULTILINE)


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
    rules = Rules(user_id=user_id, oldest=0, received=0)
    is_good = not any(series_problems(rules.series(measurement, tags), [field for field, _ in form]))
    return measurement if is_good else None
