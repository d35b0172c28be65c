"""Pictures."""

import re
from collections.abc import Callable

from .content import Content, is_drawable, uint
from .recordings import brands, is_riff

_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG's markers that tell the size of the picture."""
_HEIF = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis"})


def is_png(content: Content) -> bool:
    """PNG: chunks of known length from IHDR to IEND."""
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        return False
    if content[12:16] != b"IHDR" or len(content) < 24:
        return True  # damaged, and its first byte begins nothing else
    return is_drawable(uint(content, 16, 4), uint(content, 20, 4)) and _ends(content, _png_end)


def _png_end(content: Content) -> int:
    position, kind = 8, b""
    while kind != b"IEND":
        kind = content[position + 4 : position + 8]
        position += 12 + uint(content, position, 4)
    return position


def is_jpeg(content: Content) -> bool:
    """One picture, or several (a preview, the other eye's view) one after the other; then at most zeros."""
    if content[:3] != b"\xff\xd8\xff":
        return False
    try:
        return _ends(content, _jpeg_end)
    except Undrawable:
        return False


class Undrawable(Exception):
    """The picture is larger than anybody could draw."""


def _jpeg_end(content: Content) -> int:
    position = 0
    while content[position : position + 2] == b"\xff\xd8":
        position = _one_jpeg_end(content, position)
    return position if content[position:].strip(b"\0") else len(content)


def _one_jpeg_end(content: Content, position: int) -> int:
    position += 2
    while True:
        while content[position] == 0xFF and content[position + 1] == 0xFF:
            position += 1
        if content[position] != 0xFF:
            raise ValueError("no marker")
        marker = content[position + 1]
        if marker == 0xD9:
            return position + 2
        length = uint(content, position + 2, 2)
        if marker in _SIZES and not is_drawable(uint(content, position + 7, 2), uint(content, position + 5, 2)):
            raise Undrawable
        position += 2 + length
        if marker == 0xDA:
            found = _NEXT_MARKER.search(content, position)
            if found is None:
                raise ValueError("no end")
            position = found.start()


def is_gif(content: Content) -> bool:
    """GIF: blocks of known length up to the trailer. It has to be whole: its beginning reads as a script's."""
    if content[:6] not in {b"GIF87a", b"GIF89a"}:
        return False
    return is_drawable(uint(content, 6, 2, "little"), uint(content, 8, 2, "little")) and _gif_end(content) == len(
        content
    )


def _gif_end(content: Content) -> int:
    position = 13 + _color_table(content[10])
    while (kind := content[position]) != 0x3B:
        if kind == 0x21:
            position += 2
        elif kind == 0x2C:
            position += 10 + _color_table(content[position + 9]) + 1
        else:
            raise ValueError("no block")
        while length := content[position]:
            position += 1 + length
        position += 1
    return position + 1


def _color_table(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _ends(content: Content, end: Callable[[Content], int]) -> bool:
    """Whether the picture's end is the content's. One that is cut short or damaged may be all that there is left."""
    try:
        return end(content) == len(content)
    except (IndexError, ValueError):
        return content[0] == 0x89 or content[4] == 0


def is_webp(content: Content) -> bool:
    if not is_riff(content, b"WEBP"):
        return False
    match content[12:16]:
        case b"VP8X":
            return is_drawable(uint(content, 24, 3, "little") + 1, uint(content, 27, 3, "little") + 1)
        case b"VP8L":
            bits = uint(content, 21, 4, "little")
            return is_drawable((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        case b"VP8 ":
            return is_drawable(uint(content, 26, 2, "little") & 0x3FFF, uint(content, 28, 2, "little") & 0x3FFF)
    return True  # damaged


def is_bmp(content: Content) -> bool:
    if content[:2] != b"BM" or uint(content, 2, 4, "little") != len(content):
        return False
    height = int.from_bytes(content[22:26], "little", signed=True)
    return is_drawable(uint(content, 18, 4, "little"), abs(height))


def is_tiff(content: Content) -> bool:
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(content[:4])
    if order is None:
        return False
    directory = uint(content, 4, 4, order)
    entries = [directory + 2 + 12 * index for index in range(uint(content, directory, 2, order))]
    sizes = {uint(content, entry, 2, order): _tiff_value(content, entry, order) for entry in entries}
    return is_drawable(sizes.get(256, 0), sizes.get(257, 0))


def _tiff_value(content: Content, entry: int, order: str) -> int:
    return uint(content, entry + 8, 2 if uint(content, entry + 2, 2, order) == 3 else 4, order)


def is_heif(content: Content) -> bool:
    return bool(brands(content) & _HEIF)
