"""Finding an organization's buckets among all of an InfluxDB's.

It can be asked for one name, but not for names that begin in some way. It lists buckets by name, though, and from any
place on, so that the first such bucket is found by halving, and the others stand behind it: for ten thousand buckets
some 20 questions instead of 100.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from heartguard.errors import Unavailable
from heartguard.logs import log

from .influx_http import Json

PAGE = 100
"""The most buckets that InfluxDB gives at once."""
HIDDEN = 2
"""How many more there may be than a token sees: InfluxDB's own, which come first."""
ATTEMPTS = 3

Page = Callable[[int, int], list[Json]]
"""Gives at most so many buckets from a place in the list on."""


class _Moved(Exception):
    """Buckets were dropped between two looks at the list, so that some may have been passed over."""


def beginning_with(beginning: str, page: Page) -> list[Json]:
    """The buckets whose names begin so, by name."""
    first = page(0, PAGE)
    is_sorted = _names(first) == sorted(_names(first))
    if len(first) < PAGE - HIDDEN or (is_sorted and _is_beyond(first[-1], beginning)):
        return _chosen(first, beginning)
    if not is_sorted:
        log.warning("influx", error="the list of buckets is not by name, so that all of it has to be read for a few")
        return _chosen(_all(page), beginning)
    for _ in range(ATTEMPTS):
        with suppress(_Moved):
            return _read(page, _place_before(page, beginning), beginning)
    log.error("influx", error=f"buckets were dropped during each of {ATTEMPTS} attempts to list some")
    raise Unavailable


def _place_before(page: Page, beginning: str) -> int:
    """A place at most a page before the first such bucket, and of one before it, or of the very first."""

    def is_before(place: int) -> bool:
        return any(bucket["name"] < beginning for bucket in page(place, 1))

    low, high = 0, PAGE
    while is_before(high):
        low, high = high, high * 2
    while high - low > PAGE:
        middle = (low + high) // 2
        low, high = (middle, high) if is_before(middle) else (low, middle)
    return low


def _read(page: Page, place: int, beginning: str) -> list[Json]:
    """The buckets from a place on. Each page begins with the last bucket of the one before, or with an earlier one."""
    found: dict[str, Json] = {}
    last, full = beginning, False
    while part := page(place, PAGE):
        if place and part[0]["name"] > last:
            raise _Moved
        found |= {bucket["name"]: bucket for bucket in part}
        if _is_beyond(part[-1], beginning):
            return _chosen(found.values(), beginning)
        last, full, place = part[-1]["name"], len(part) == PAGE, place + PAGE - 1
    if full:
        raise _Moved
    return _chosen(found.values(), beginning)


def _all(page: Page) -> Iterator[Json]:
    place = 0
    while part := page(place, PAGE):
        yield from part
        place += PAGE


def _is_beyond(bucket: Json, beginning: str) -> bool:
    """Whether it comes after all that begin so."""
    name: str = bucket["name"]
    return name > beginning and not name.startswith(beginning)


def _chosen(buckets: Iterable[Json], beginning: str) -> list[Json]:
    return [bucket for bucket in buckets if bucket["name"].startswith(beginning)]


def _names(buckets: list[Json]) -> list[str]:
    return [bucket["name"] for bucket in buckets]
