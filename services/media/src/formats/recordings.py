"""Sound and film."""

import re

from .content import Content, CutShortError, Pieces, uint

_TEXT = re.compile(rb"[\t-\r\x20-\x7e]*")
_QUICKTIME = b"qt  "
BOX = re.compile(rb"[\x20-\x7e]{4}")
"""The kind of a box of an ISO base media file."""


def is_riff(content: Content, kind: bytes) -> bool:
    """RIFF. A length that can be read as text would be one of half a gigabyte, or part of a script."""
    return content[:4] in {b"RIFF", b"RF64"} and content[8:12] == kind and not _TEXT.fullmatch(content[4:8])


def is_wav(content: Content) -> bool:
    return is_riff(content, b"WAVE")


def is_avi(content: Content) -> bool:
    return is_riff(content, b"AVI ")


def is_ogg(content: Content) -> bool:
    return content[:5] == b"OggS\0"


def is_flac(content: Content) -> bool:
    return content[:4] == b"fLaC" and content[4] & 0x7F == 0


def is_mp3(content: Content) -> bool:
    """MPEG audio, layer III or less, or an ID3 tag before it."""
    if content[:3] == b"ID3":
        return content[3] in {2, 3, 4} and max(content[6:10]) < 0x80
    head = uint(content, 0, 4)
    version, layer, bitrate, rate = head >> 19 & 3, head >> 17 & 3, head >> 12 & 15, head >> 10 & 3
    return head >> 21 == 0x7FF and version != 1 and layer != 0 and bitrate not in {0, 15} and rate != 3


def is_aac(content: Content) -> bool:
    """ADTS: two frames one after the other, or one alone."""
    length = (uint(content, 3, 3) >> 5) & 0x1FFF
    return _is_adts(content, 0) and length > 7 and (length == len(content) or _is_adts(content, length))


def _is_adts(content: Content, position: int) -> bool:
    return uint(content, position, 2) & 0xFFF6 == 0xFFF0


def brands(content: Content) -> set[bytes]:
    """What an ISO base media file says that it can be read as; empty for other files.

    Nobody says much: so the file begins with zeros, and no other kind does.
    """
    if content[4:8] != b"ftyp" or (end := uint(content, 0, 4)) > 1024:
        return set()
    return {content[8:12], *(content[position : position + 4] for position in range(16, end, 4))}


def is_mp4(content: Content) -> bool:
    found = brands(content)
    return bool(found) and content[8:12] != _QUICKTIME


def is_quicktime(content: Content) -> bool:
    """Old files have no ``ftyp``. They begin with a length, which other kinds' beginnings would make gigabytes."""
    return bool(brands(content)) or (
        content[4:8] in {b"moov", b"mdat", b"wide", b"free", b"skip"} and uint(content, 0, 4) <= len(content)
    )


def film_end(content: Content, position: int, end: int, pieces: Pieces) -> int:
    """Where the MP4 ends that begins there and ends by ``end``, box by box: what follows may be no part of it.

    Raises CutShortError where its film or what describes it goes on behind ``end``.
    """
    if not is_mp4(content[position : position + 1024]):
        raise ValueError("no film")
    begin = position
    while position + 8 <= end and BOX.fullmatch(kind := content[position + 4 : position + 8]):
        if kind == b"ftyp" and position > begin:  # another file
            break
        pieces.count()
        if uint(content, position, 4) == 0 and kind != b"mdat":  # of no length: up to the end
            raise ValueError("no box")
        position = box_end(content, position, end)
        if position > end:
            if kind in {b"mdat", b"moov"}:
                raise CutShortError
            raise ValueError("no box")
    return position


def box_end(content: Content, position: int, end: int) -> int:
    length = uint(content, position, 4)
    if length == 1:
        length = uint(content, position + 8, 8)
    if 0 < length < 8:
        raise ValueError("no box")
    return position + length if length else end


def is_webm(content: Content) -> bool:
    """Matroska, of which WebM is a kind."""
    head = content[:128]
    return head[:4] == b"\x1a\x45\xdf\xa3" and (b"webm" in head or b"matroska" in head)


def is_mpeg(content: Content) -> bool:
    return content[:4] in {b"\0\0\1\xba", b"\0\0\1\xb3"}
