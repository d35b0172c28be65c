"""Which points of a batch a store cannot read, that says so of lines."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from heartguard.models.common import Detail

from .check import Check
from .errors import Unreadable
from .line_protocol import Entry, parse
from .points import Rules, shown

Key = tuple[bytes, int | None]
"""A series, and a time, None for that of receipt."""


class _Line:
    """A line that was sent to the store; ``point`` is None where it cannot be told which."""

    def __init__(self, text: str, reason: str, precision: int) -> None:
        self.text = text
        self.problem = f"cannot be read by the store{': ' if reason else ''}{shown(reason) if reason else ''}"
        self.is_found = False
        point = next(parse(text, precision), None)
        self.point = None if isinstance(point, Detail) else point

    def keys(self, rules: Rules) -> list[Key]:
        if self.point is None:
            return []
        _, measurement, tags, _, time = self.point
        series = rules.series(measurement, tags).key
        return [(series, time), (series, None)]

    def may_be_of(self, fields: Mapping[str, object]) -> bool:
        return self.point is not None and self.point[3].keys() <= fields.keys()


def unreadable(refused: Unreadable, entries: Iterable[Entry | Detail], rules: Rules, check: Check) -> Unreadable:
    """The same with details: the points that the lines come from, or else the lines."""
    lines = [_Line(text, reason, refused.precision) for text, reason in refused.lines]
    sought: dict[Key, list[_Line]] = defaultdict(list)
    for line in lines:
        for key in line.keys(rules):
            sought[key].append(line)
    for entry in entries:
        if isinstance(entry, Detail) or check.full:
            continue
        index, measurement, tags, fields, time = entry
        for line in sought.get((rules.series(measurement, tags).key, time), []):
            if line.may_be_of(fields):
                line.is_found = True
                check.found(Detail(path=check.path(index), message=line.problem))
    for line in lines:
        if not line.is_found:
            check.found(Detail(path=check.root, message=f"{shown(line.text)} {line.problem}"))
    return Unreadable(refused.lines, refused.precision, check.details())
