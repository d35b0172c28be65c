"""Pictures, but for JPEG."""

from collections.abc import Iterator

from .content import Content, CutShortError, Pieces, is_drawable, uint
from .recordings import BOX, box_end, brands, is_riff

_HEIF = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis"})
_BOXES = {b"": {b"meta", b"moov"}, b"meta": {b"iprp"}, b"iprp": {b"ipco"}, b"moov": {b"trak"}}
"""The boxes that are looked into, by the box that they are in."""


def is_png(content: Content) -> bool:
    """PNG: chunks of known length from IHDR to IEND."""
    if content[:16] != b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" or not is_drawable(uint(content, 16, 4), uint(content, 20, 4)):
        return False
    try:
        return _png_end(content) >= len(content)
    except CutShortError:
        return True


def _png_end(content: Content) -> int:
    position, kind, pieces = 8, b"", Pieces(content)
    while kind != b"IEND":
        pieces.count()
        length, kind = uint(content, position, 4), content[position + 4 : position + 8]
        if kind and not kind.isalpha():
            raise ValueError("no chunk")
        position += 12 + length
    return position


def is_gif(content: Content) -> bool:
    """GIF: blocks of known length up to the trailer. It has to be whole: its beginning reads as a script's."""
    if content[:6] not in {b"GIF87a", b"GIF89a"}:
        return False
    return is_drawable(uint(content, 6, 2, "little"), uint(content, 8, 2, "little")) and _gif_end(content) == len(
        content
    )


def _gif_end(content: Content) -> int:
    position, pieces = 13 + _color_table(content[10]), Pieces(content)
    while (kind := content[position]) != 0x3B:
        if kind == 0x21:
            position += 2
        elif kind == 0x2C:
            position += 10 + _color_table(content[position + 9]) + 1
        else:
            raise ValueError("no block")
        pieces.count()
        while length := content[position]:
            pieces.count()
            position += 1 + length
        position += 1
    return position + 1


def _color_table(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def is_webp(content: Content) -> bool:
    if not is_riff(content, b"WEBP"):
        return False
    length = uint(content, 4, 4, "little")
    if len(content) > 8 + length + length % 2:
        return False
    match content[12:16]:
        case b"VP8X":
            return is_drawable(uint(content, 24, 3, "little") + 1, uint(content, 27, 3, "little") + 1)
        case b"VP8L":
            bits = uint(content, 21, 4, "little")
            return content[20] == 0x2F and is_drawable((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        case b"VP8 ":
            return content[23:26] == b"\x9d\x01\x2a" and is_drawable(
                uint(content, 26, 2, "little") & 0x3FFF, uint(content, 28, 2, "little") & 0x3FFF
            )
    return False


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
    count = uint(content, directory, 2, order)
    Pieces(content).count(count)
    entries = [directory + 2 + 12 * index for index in range(count)]
    sizes = {uint(content, entry, 2, order): _tiff_value(content, entry, order) for entry in entries}
    return is_drawable(sizes.get(256, 0), sizes.get(257, 0))


def _tiff_value(content: Content, entry: int, order: str) -> int:
    return uint(content, entry + 8, 2 if uint(content, entry + 2, 2, order) == 3 else 4, order)


def is_heif(content: Content) -> bool:
    """HEIF and AVIF: the size of each picture is a property of it, that of each film is in its track."""
    if not brands(content) & _HEIF:
        return False
    sizes = list(_heif_sizes(content, 0, len(content), Pieces(content)))
    return bool(sizes) and all(is_drawable(*size) for size in sizes)


def _heif_sizes(
    content: Content, position: int, end: int, pieces: Pieces, within: bytes = b""
) -> Iterator[tuple[int, int]]:
    """Of all pictures and films. What ends early must do so in the data, which mostly come last."""
    while position + 8 <= end:
        pieces.count()
        kind, next_ = content[position + 4 : position + 8], box_end(content, position, end)
        if not BOX.fullmatch(kind) or (next_ > end and kind != b"mdat"):
            raise ValueError("no box")
        if kind in _BOXES.get(within, ()):
            yield from _heif_sizes(content, position + (12 if kind == b"meta" else 8), next_, pieces, kind)
        elif kind == b"ispe":
            yield uint(content, position + 12, 4), uint(content, position + 16, 4)
        elif kind == b"tkhd" and (width := uint(content, next_ - 8, 4) >> 16):  # sound has none
            yield width, uint(content, next_ - 4, 4) >> 16
        position = next_
