"""Lines that differ in digits only are of one kind: a batch of thousands has a few, and each is judged once.

That is for lines in whose names no digit stands. What digits do decide is asked of all lines at once: whose they are,
and whether their times lie within bounds.
"""

from collections.abc import Collection, Mapping, Set
from functools import lru_cache
from typing import NamedTuple

from .line_forms import DIGITS_ALIKE, Form, form_of, good_head, has_digit, pattern_of
from .points import MAX_SERIES, Rules
from .store import FieldType
from .tenancy import USER_TAG

MOST_KINDS = 256
LONGEST = 1024
"""Bytes of a line that is remembered."""
MAX_DIGITS = 19
"""Of a time that is plain."""


class Survey(NamedTuple):
    """What a text holds: how many points, how many values, and the types of fields by measurement."""

    points: int
    values: int
    types: dict[str, dict[str, FieldType]]


class Kind(NamedTuple):
    """What good lines of a kind have in common. ``digits`` are those of the time."""

    measurement: str
    has_user: bool
    form: Form
    digits: int


def survey_by_kind(lines: bytes, precision: int, rules: Rules) -> Survey | None:
    """None where the lines are not of a few kinds, or not all is well, or that cannot be told in this way.

    There must be no quotes and no backslashes in them.
    """
    end = lines.find(b"\n")
    first = lines[:end] if end >= 0 else lines
    if len(first) > LONGEST or _kind(first.translate(DIGITS_ALIKE)) is None:
        return None
    alike = lines.translate(DIGITS_ALIKE).removesuffix(b"\n").split(b"\n")
    kinds = _kinds(set(alike))
    types = _types(kinds.values())
    if len(alike) > MAX_SERIES or not kinds or types is None:
        return None
    if not _are_own(lines, len(alike), kinds.values(), rules):
        return None
    digits = {kind.digits for kind in kinds.values()}
    if len(digits) > 1 or not _are_timely(lines, first, len(alike), digits.pop(), precision, rules):
        return None
    return Survey(len(alike), _values(alike, kinds), types)


def _kinds(lines: Set[bytes]) -> dict[bytes, Kind]:
    """The kinds of lines whose digits are all 0; nothing where there are too many, or one is of none."""
    if len(lines) > MOST_KINDS or max(map(len, lines)) > LONGEST:
        return {}
    kinds = {line: kind for line in lines if (kind := _kind(line))}
    return kinds if len(kinds) == len(lines) else {}


@lru_cache(maxsize=4096)
def _kind(line: bytes) -> Kind | None:
    """None where it is no good line, or digits decide what it means."""
    parts = line.split()
    if len(parts) != 3 or line != b" ".join(parts):
        return None
    head, fields, time = parts
    if len(time) > MAX_DIGITS or time.strip(b"0"):
        return None
    form = form_of(fields)
    pattern, known = pattern_of(form), good_head(head)
    if known is None or pattern is None or not pattern.fullmatch(fields):
        return None
    names = [known.measurement, *known.tags, *(field for field, _ in form)]
    if any(map(has_digit, names)):
        return None
    return Kind(known.measurement, USER_TAG in known.tags, form, len(time))


def _types(kinds: Collection[Kind]) -> dict[str, dict[str, FieldType]] | None:
    """The types of fields by measurement; None where a field has two."""
    types: dict[str, dict[str, FieldType]] = {}
    for kind in kinds:
        known = types.setdefault(kind.measurement, {})
        if any(known.setdefault(field, its) != its for field, its in kind.form):
            return None
    return types


def _values(alike: list[bytes], kinds: Mapping[bytes, Kind]) -> int:
    fields = {line: len(kind.form) for line, kind in kinds.items()}
    if len(set(fields.values())) == 1:
        return len(alike) * fields[alike[0]]
    return sum(map(fields.__getitem__, alike))


def _are_own(lines: bytes, points: int, kinds: Collection[Kind], rules: Rules) -> bool:
    """Whether all have the tag that they must have, where they must."""
    if rules.user_id is None:
        return True
    if not all(kind.has_user for kind in kinds) or any(USER_TAG in dict(kind.form) for kind in kinds):
        return False
    tag = f",{USER_TAG}={rules.user_id}".encode()
    return lines.count(tag + b",") + lines.count(tag + b" ") == points


def _are_timely(lines: bytes, first: bytes, points: int, digits: int, precision: int, rules: Rules) -> bool:
    """Whether all times begin as the first and the last do, and lie within bounds whatever their other digits are.

    They all have as many. A space comes before fields too, but these begin with no digit.
    """
    last = lines[-LONGEST - 1 :].removesuffix(b"\n")
    beginning = _common(first[-digits:], last[-digits:])
    if lines.count(b" " + beginning) != points:
        return False
    earliest, latest = int(beginning.ljust(digits, b"0")), int(beginning.ljust(digits, b"9"))
    return rules.oldest <= earliest * precision and latest * precision <= rules.newest


def _common(one: bytes, other: bytes) -> bytes:
    """What both begin with; they are as long."""
    differing = (place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    return one[: next(differing, len(one))]
