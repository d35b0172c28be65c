"""What is said of the points of a batch that are not stored: in a message that fits a line of an agent's log."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from heartguard.models.common import Detail

from .points import shown

LONGEST = 1_500
"""Characters of a message; some daemons cut lines of a log at 2,048 bytes."""
MOST_PLACES = 10
"""That are named with the same reason."""
LONGEST_REASON = 200
SEVERAL = -1
"""Stands for the number of a point where several are meant."""


def place(detail: Detail) -> int:
    """The number of the point (or line) that it is about."""
    number = detail.path.split("/", 3)[2:3]
    return int(number[0]) if number else SEVERAL


def summary(
    count: int, total: int, details: Sequence[Detail], measurements: Mapping[int, str], unsettled: int = 0
) -> str:
    """Of so many points of ``total`` which were not stored, and why; of the first few, where there are many.

    ``details`` are in the order of the batch; ``measurements`` are those of points, as far as they are known.
    """
    were = "was" if count == 1 else "were"
    said = f"{count} of {total} points {were} not stored"
    if unsettled:
        said += f", and {unsettled} more perhaps not"
    groups = _grouped(details, measurements)
    named = 0
    for number, (reason, places) in enumerate(groups.items()):
        part = f"{'; ' if number else ': '}{_shown(places, details[0].path.split('/', 2)[1])}{reason}"
        if number and len(said) + len(part) > LONGEST:
            break
        said += part
        named += sum(one != SEVERAL for one in places)
    return f"{said}; and {count - named} more" if named < count else said


def _grouped(details: Iterable[Detail], measurements: Mapping[int, str]) -> dict[str, list[int]]:
    """The first reason of each point, with the places of those that have it."""
    groups: dict[str, list[int]] = {}
    last = None
    for detail in details:
        number = place(detail)
        if number == last != SEVERAL:
            continue
        last = number
        reason = detail.message[:LONGEST_REASON]
        if reason.startswith("is "):
            reason = f"the timestamp {reason}"
        if number in measurements:
            reason += f" (in {shown(measurements[number])})"
        groups.setdefault(reason, []).append(number)
    return groups


def _shown(places: Sequence[int], kind: str) -> str:
    """``line 3: ``, ``lines 3, 5-9: ``."""
    if SEVERAL in places:
        return ""
    runs = list(_runs(places))
    texts = [str(begin) if begin == end else f"{begin}-{end}" for begin, end in runs[:MOST_PLACES]]
    more = sum(end - begin + 1 for begin, end in runs[MOST_PLACES:])
    noun = kind if len(places) > 1 else kind.removesuffix("s")
    return f"{noun} {', '.join(texts)}{f' and {more} more' if more else ''}: "


def _runs(places: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Numbers that follow one another, as their first and last."""
    for _, run in groupby(enumerate(places), lambda numbered: numbered[1] - numbered[0]):
        numbers = [number for _, number in run]
        yield numbers[0], numbers[-1]
