"""Files of other kinds within one: those that are not looked for at its beginning alone."""

import re

from .content import Content, uint

_ARCHIVE = re.compile(rb"Rar!\x1a\x07[\0\1]|7z\xbc\xaf\x27\x1c")
"""What is looked for behind a program that unpacks itself, in the first megabyte."""
_ARCHIVE_END = re.compile(rb"PK\x05\x06")
_ARCHIVE_TAIL = 22 + 65_535
"""Bytes that the end of a ZIP archive takes at most: its record, and a comment."""
_FAR_DIRECTORY = b"PK\x06\x07"
"""Before the end of an archive of more than 4 GiB (ZIP64)."""


def is_archive_too(content: Content) -> bool:
    """Whether programs that unpack archives would: ZIP, TAR, RAR, 7z.

    Four bytes of compressed data can look like the end of a ZIP archive; that has to lead to a directory.
    """
    if content[257:262] == b"ustar" or _ARCHIVE.search(content, 0, 1024 * 1024):
        return True
    begin = max(0, len(content) - _ARCHIVE_TAIL)
    return any(_leads_to_directory(content, begin + found.start()) for found in _ARCHIVE_END.finditer(content[begin:]))


def _leads_to_directory(content: Content, end: int) -> bool:
    if len(content) < end + 22:
        return False
    size, offset = uint(content, end + 12, 4, "little"), uint(content, end + 16, 4, "little")
    places = (end - size, offset)
    return content[max(0, end - 20) : end - 16] == _FAR_DIRECTORY or any(
        place >= 0 and content[place : place + 4] == b"PK\x01\x02" for place in places
    )


def is_document_too(content: Content) -> bool:
    """Whether programs that show PDF would take it: they look for the beginning in the first kilobyte."""
    return b"%PDF-" in content[:1024]
