"""How content is looked at: mapped from the disk, not read into memory."""

from mmap import mmap

Content = mmap | bytes

MAX_PIXELS = 100_000_000
"""A picture of more would fill the memory of whoever opens it, however small the file is."""


class CutShortError(ValueError):
    """The content ends where more should come."""


def uint(content: Content, position: int, size: int, order: str = "big") -> int:
    """The unsigned integer of ``size`` bytes. Raises CutShortError where the content ends before."""
    found = content[position : position + size]
    if len(found) < size:
        raise CutShortError
    return int.from_bytes(found, "little" if order == "little" else "big")


def is_drawable(width: int, height: int) -> bool:
    return width > 0 and height > 0 and width * height <= MAX_PIXELS


class Pieces:
    """Counts what a file consists of (segments, chunks, blocks, boxes, entries) while it is walked.

    A file of nothing but tiny pieces would take seconds to judge. One of more than 20,000 pieces,
    and one for each 128 bytes, is refused. Nothing honest comes near: pictures have a few thousand
    at most, and what GIF cuts into many it cuts into blocks of 255 bytes.
    """

    def __init__(self, content: Content) -> None:
        self._left = 20_000 + len(content) // 128

    def count(self, number: int = 1) -> None:
        self._left -= number
        if self._left < 0:
            raise ValueError("too many pieces")
