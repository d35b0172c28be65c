"""Rows in the binary format of PostgreSQL's COPY: each its number of columns, each column its length and bytes.

The columns are ``bucket_id, series_id, ts`` and the value.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

_BEGIN = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
_END = struct.pack("!h", -1)
_SERIES = struct.Struct("!hiqiqi")
_FLOAT = struct.Struct("!qid")
_INT = struct.Struct("!qiq")
_BOOL = struct.Struct("!qi?")
_TEXT = struct.Struct("!qi")

KINDS: Sequence[type] = (float, int, bool, str)
"""The order in which values are written: it must be the same for all, so that no two wait for each other."""


class Strand(NamedTuple):
    """Values of one series, all of a kind, by ascending time."""

    kind: type
    series: int
    times: Sequence[int]
    values: Sequence[Any]

    def cut(self, begin: int, end: int | None) -> "Strand":
        return Strand(self.kind, self.series, self.times[begin:end], self.values[begin:end])


def portions(strands: Sequence[Strand], size: int) -> Iterator[list[Strand]]:
    """All values, by kind, series and time, in portions of one kind and at most ``size`` values."""
    for kind in KINDS:
        portion: list[Strand] = []
        room = size
        for strand in sorted((strand for strand in strands if strand.kind is kind), key=itemgetter(1)):
            while len(strand.times) > room:
                yield [*portion, strand.cut(0, room)]
                portion, room, strand = [], size, strand.cut(room, None)
            portion.append(strand)
            room -= len(strand.times)
        if portion:
            yield portion


def rows(bucket: int, portion: Sequence[Strand]) -> bytes:
    """What to send for a portion."""
    parts = [_BEGIN]
    for kind, series, times, values in portion:
        before = _SERIES.pack(4, 8, bucket, 8, series, 8)
        parts += before, before.join(_PACKED[kind](times, values))
    return b"".join([*parts, _END])


def _floats(times: Sequence[int], values: Sequence[Any]) -> Iterable[bytes]:
    pack = _FLOAT.pack
    return [pack(time, 8, value) for time, value in zip(times, values, strict=True)]


def _integers(times: Sequence[int], values: Sequence[Any]) -> Iterable[bytes]:
    return [_INT.pack(time, 8, value) for time, value in zip(times, values, strict=True)]


def _booleans(times: Sequence[int], values: Sequence[Any]) -> Iterable[bytes]:
    return [_BOOL.pack(time, 1, value) for time, value in zip(times, values, strict=True)]


def _strings(times: Sequence[int], values: Sequence[Any]) -> Iterable[bytes]:
    for time, value in zip(times, values, strict=True):
        encoded = value.encode()
        yield _TEXT.pack(time, len(encoded)) + encoded


_PACKED: Mapping[type, Callable[[Sequence[int], Sequence[Any]], Iterable[bytes]]] = {
    float: _floats,
    int: _integers,
    bool: _booleans,
    str: _strings,
}
