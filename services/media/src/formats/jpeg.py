"""JPEG, and what cameras and phones put behind a picture's end.

Padding; more pictures (Multi-Picture Format, CIPA DC-007: previews, the gain map of Ultra HDR); the
film of a motion photo (Google's Motion Photo format 1.0); Samsung's trailer.
"""

import re

from . import samsung
from .content import Content, CutShortError, Pieces, is_drawable, uint
from .recordings import film_end

MAX_PADDING = 1024 * 1024
"""Zeros and white space in all. Cameras fill up sectors or clusters, of 64 KiB at most mostly."""
_PADDING = re.compile(rb"[\0\t\n\r ]*")
_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SCAN, _END = 0xDA, 0xD9
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The markers that tell the size of the picture."""


def is_jpeg(content: Content) -> bool:
    if content[:3] != b"\xff\xd8\xff":
        return False
    pieces = Pieces(content)
    end = samsung.trailer_begin(content, pieces)
    try:
        return _ends_well(content, _picture_end(content, 0, pieces), end, pieces)
    except CutShortError:
        return end == len(content)


def _ends_well(content: Content, position: int, end: int, pieces: Pieces) -> bool:
    """Whether what is between the first picture and the trailer, or the end, may be there."""
    padding, films = 0, 0
    while (begin := _padding_end(content, position, end)) < end:
        pieces.count()
        padding += begin - position
        if content[begin : begin + 2] == b"\xff\xd8":
            position = _picture_end(content, begin, pieces)
        else:
            position = film_end(content, begin, end, pieces)
            films += 1
    return begin == end and padding + begin - position <= MAX_PADDING and films <= 1


def _padding_end(content: Content, position: int, end: int) -> int:
    """A film begins with its first box's length, of which some bytes look like padding."""
    found = _PADDING.match(content, position, end)
    begin = found.end() if found else position
    kind = content.find(b"ftyp", begin, begin + 6)
    return begin if kind < 0 else max(position, kind - 4)


def _picture_end(content: Content, position: int, pieces: Pieces) -> int:
    """Behind the picture that begins there. Raises CutShortError if it ends early, yet tells its size."""
    sized, marker, position = False, 0, position + 2
    try:
        while marker != _END:
            pieces.count()
            marker, position = _marker(content, position)
            if marker in _SIZES:
                sized = True
                if not is_drawable(uint(content, position + 5, 2), uint(content, position + 3, 2)):
                    raise ValueError("too large")
            elif marker in {_SCAN, _END} and not sized:
                raise ValueError("no size")
            if marker != _END:
                position = _segment_end(content, marker, position)
    except CutShortError as error:
        if sized:
            raise
        raise ValueError("no size") from error
    return position


def _marker(content: Content, position: int) -> tuple[int, int]:
    found = _MARKER.match(content, position)
    if found:
        return found[1][0], found.end()
    if content[position : position + 1] in {b"", b"\xff"}:
        raise CutShortError
    raise ValueError("no marker")


def _segment_end(content: Content, marker: int, position: int) -> int:
    position += uint(content, position, 2)
    if marker != _SCAN:
        return position
    found = _NEXT_MARKER.search(content, position)
    if found is None:
        raise CutShortError
    return found.start()
