"""Line protocol looked over in bulk, so that a store which speaks it can be given the very text.

It is for plain text: each line ends with a timestamp, nothing is quoted or escaped, numbers are short enough to be
finite, and lines have few forms. Of anything else there is no survey, and the lines are read one by one.
"""

from collections.abc import Iterator, Set
from operator import itemgetter
from re import Pattern

from .line_forms import DIGITS_ALIKE, Form, form_of, good_head, has_digit, pattern_of
from .line_kinds import MAX_DIGITS, Survey, survey_by_kind
from .points import MAX_SERIES, Rules
from .store import FieldType
from .tenancy import USER_TAG

MAX_FORMS = 8
LONGEST_REMEMBERED = 512
"""Bytes of a beginning of a line that is remembered."""
REMEMBERED = 32_768

_NO_SEPARATORS = bytes({*range(256)} - set(b" \t\n\v\f\r"))

_heads: dict[bytes, tuple[str, str | None]] = {}
"""The measurement and the user, if there is one, of beginnings that were found to be good."""


def survey(lines: bytes, precision: int, rules: Rules) -> Survey | None:
    """None where the text is not plain, or not all is well: to read it line by line tells what it is."""
    if b"\\" in lines or b'"' in lines:
        return None
    return survey_by_kind(lines, precision, rules) or survey_by_part(lines, precision, rules)


def survey_by_part(lines: bytes, precision: int, rules: Rules) -> Survey | None:
    """The same for all plain text: every beginning, all fields and every time are looked at."""
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
        form = form_of(next(iter(left)))
        pattern = pattern_of(form)
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


def _alike(fields: set[bytes], pattern: Pattern[bytes], form: Form) -> set[bytes]:
    """Those that have the form. Where no digit stands in its names, fields that differ in digits only are one to it."""
    if not any(has_digit(field) for field, _ in form):
        kinds = set(b"\n".join(fields).translate(DIGITS_ALIKE).split(b"\n"))
        if all(map(pattern.fullmatch, kinds)):
            return fields
    return set(filter(pattern.fullmatch, fields))


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


def _judged(heads: Set[bytes]) -> list[tuple[str, str | None]]:
    """The measurement and the user of each; nothing where one is not good."""
    try:
        return list(map(_heads.__getitem__, heads))
    except KeyError:
        pass
    found = []
    for text in heads:
        known = _heads.get(text)
        if known is None:
            head = good_head(text)
            if head is None:
                return []
            known = head.measurement, head.tags.get(USER_TAG)
            _remember(text, known)
        found.append(known)
    return found


def _remember(text: bytes, head: tuple[str, str | None]) -> None:
    """Devices send the same again and again."""
    if len(text) <= LONGEST_REMEMBERED:
        if len(_heads) >= REMEMBERED:
            _heads.clear()
        _heads[text] = head
