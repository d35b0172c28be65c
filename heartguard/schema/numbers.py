"""Numbers as JSON writes them, in either format."""

import math
import re
import sys

GRAMMAR = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+\-]?[0-9]+)?"
"""RFC 8259, section 6."""
WHOLE = r"-?(0|[1-9][0-9]*)(\.0+)?"
"""Integers as they are usually written: no pattern can tell which exponents leave a number whole."""

LARGEST = sys.float_info.max
BEYOND = 10**309
"""Stands for every number that no double holds, so that the schema's bounds refuse it."""

_EXACT = 2**63
"""Integers beyond it are read as doubles: the judge takes milliseconds for one of thousands of digits."""
_MOST_CHARACTERS = len(str(int(-LARGEST)))
_number = re.compile(GRAMMAR).fullmatch


def number(text: str) -> int | float | None:
    """The number that ``text`` writes, or None where it writes none."""
    found = _number(text)
    if found is None:
        return None
    if found[2] or found[3]:
        value = float(text)
        return value if math.isfinite(value) else _beyond(text)
    return as_double(int(text)) if len(text) <= _MOST_CHARACTERS else _beyond(text)


def as_double(value: int) -> int | float:
    """``value`` as it is where it is small; else as the schema's bounds on numbers judge it no differently."""
    if -_EXACT <= value <= _EXACT:
        return value
    try:
        return float(value)
    except OverflowError:
        return BEYOND if value > 0 else -BEYOND


def _beyond(text: str) -> int:
    return -BEYOND if text.startswith("-") else BEYOND
