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
