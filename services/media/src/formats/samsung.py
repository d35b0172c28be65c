"""What Samsung's phones put at the end of a JPEG: blocks, a directory of them, its length, and ``SEFT``.

Nothing of Samsung's describes it: this is what ExifTool (Samsung.pm, ProcessSamsung) knows. All numbers
are little-endian. A block: its kind (4 bytes), the length of its name (4), its name, its content. The
directory: ``SEFH``, version (4), number of blocks (4), and of each its kind (4), how far before the
directory it begins (4), and its length (4).
"""

import re

from .content import Content, Pieces, uint
from .recordings import film_end

_FILM = b"MotionPhoto_Data"
_NAME = re.compile(rb"[\x20-\x7e]{1,255}")
_OTHERS = re.compile(
    rb"\x7fELF|MZ.[\0\1]|[\xce\xcf]\xfa\xed\xfe|\xca\xfe\xba\xbe|#!|PK[\1\3\5]|Rar!|7z\xbc\xaf|%PDF"
    rb"|\s*(?i:<(!doctype|html|script|svg|\?php))",
    re.DOTALL,
)
"""What a block's content must not begin with: programs, archives, documents, pages."""


def trailer_begin(content: Content, pieces: Pieces) -> int:
    """The content's length where there is no trailer. Raises ValueError for one that is not sound."""
    if content[-4:] != b"SEFT":
        return len(content)
    end = len(content) - 8
    directory = end - uint(content, end, 4, "little")
    if directory < 0 or content[directory : directory + 4] != b"SEFH":
        raise ValueError("no directory")
    count = uint(content, directory + 8, 4, "little")
    pieces.count(count)
    if directory + 12 + 12 * count != end:
        raise ValueError("no directory")
    blocks = sorted(_block(content, directory, index) for index in range(count))
    position = first = blocks[0][0] if blocks else directory
    for begin, block_end in blocks:
        if begin != position:
            raise ValueError("something between the blocks")
        _check(content, begin, block_end, pieces)
        position = block_end
    if position != directory:
        raise ValueError("something behind the blocks")
    return first


def _block(content: Content, directory: int, index: int) -> tuple[int, int]:
    """Where it begins and ends."""
    entry = directory + 12 + 12 * index
    begin = directory - uint(content, entry + 4, 4, "little")
    if begin < 0 or content[begin : begin + 4] != content[entry : entry + 4]:
        raise ValueError("no block")
    return begin, begin + uint(content, entry + 8, 4, "little")


def _check(content: Content, begin: int, end: int, pieces: Pieces) -> None:
    within = begin + 8 + uint(content, begin + 4, 4, "little")
    name = content[begin + 8 : min(within, begin + 264)]
    if within > end or not _NAME.fullmatch(name) or _OTHERS.match(content, within, end):
        raise ValueError("no block")
    if name == _FILM and film_end(content, within, end, pieces) != end:
        raise ValueError("something behind the film")
