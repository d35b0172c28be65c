"""The parts of a line of plain line protocol, judged: its beginning (measurement and tags), and its fields.

Plain means that nothing is quoted or escaped, and that numbers are short enough to be finite.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from heartguard.models.common import Detail

from .line_protocol import parse
from .points import field_problem, head_problems, is_short
from .store import TYPES, FieldType, Series

DIGITS_ALIKE = bytes.maketrans(b"123456789", b"000000000")
has_digit = re.compile("[0-9]").search

_VALUES: dict[FieldType, bytes] = {
    "float": rb"-?[0-9]{1,17}(?:\.[0-9]{1,17})?",
    "integer": rb"-?[0-9]{1,18}i",
    "boolean": rb"(?:true|false|[tTfF])",
}
"""What they are like; which digits they have makes no difference."""

Form = tuple[tuple[str, FieldType], ...]
"""The fields of a line with their types, in its order."""


class Head(NamedTuple):
    """The beginning of a line."""

    measurement: str
    tags: dict[str, str]


def form_of(fields: bytes) -> Form:
    """Empty where these are no fields."""
    point = next(parse(f"m {fields.decode()} 0", 1), None)
    if point is None or isinstance(point, Detail):
        return ()
    return tuple((field, TYPES[type(value)]) for field, value in point[3].items())


@lru_cache(maxsize=1024)
def pattern_of(form: Form) -> re.Pattern[bytes] | None:
    """What the fields of a good form are like; None where it is none."""
    if not form or any(kind not in _VALUES or field_problem(field) for field, kind in form):
        return None
    return re.compile(b",".join(re.escape(field.encode()) + b"=" + _VALUES[kind] for field, kind in form))


def good_head(text: bytes) -> Head | None:
    """None where it is not good, or so long that this depends on the fields."""
    point = next(parse(f"{text.decode()} f=0 0", 1), None)
    if point is None or isinstance(point, Detail):
        return None
    _, measurement, tags, _, _ = point
    series = Series(measurement, tuple(sorted(tags.items())))
    return Head(measurement, dict(tags)) if is_short(series) and not any(head_problems(series)) else None
