"""Documents, tables, and the formats of medical devices."""

import codecs
import re

from .content import Content

PIECE = 1024 * 1024

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_PAGE = re.compile(
    rb"\s*<(!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p|!--|svg|\?xml|\?php)"
    rb"[\s>]",
    re.IGNORECASE,
)
"""What makes browsers take a text for a page (WHATWG MIME Sniffing, section 7.1)."""
_OTHERS = (b"GIF87a", b"GIF89a", b"%PDF-", b"%!PS-", b"#!/", b"#! /")
"""What files begin with that are of other kinds, yet text throughout; the rest have control characters at once."""
_OBJECT = re.compile(rb"[\r\n]\d{1,10} \d{1,5} obj\b")
_PRINTABLE = re.compile(rb"[\x20-\x7e]*")


def is_pdf(content: Content) -> bool:
    """Nothing comes behind its end; one that is cut short has an object at least."""
    if content[:5] != b"%PDF-":
        return False
    end = content.rfind(b"%%EOF")
    if end < 0:
        return _OBJECT.search(content, 0, PIECE) is not None
    return not content[end + 5 :].strip(b"\0\t\n\f\r ")


def is_csv(content: Content) -> bool:
    """Text in UTF-8 that no browser would take for a page, and that is no file of another kind."""
    begin = content[:1024].removeprefix(codecs.BOM_UTF8)
    if _PAGE.match(begin) or begin.startswith(_OTHERS) or is_edf(content):
        return False
    decoder = codecs.getincrementaldecoder("utf-8")()
    for position in range(0, len(content), PIECE):
        if _CONTROL.search(decoder.decode(content[position : position + PIECE])):
            return False
    decoder.decode(b"", final=True)
    return True


def is_dicom(content: Content) -> bool:
    """DICOM PS3.10: a preamble and ``DICM``. The preamble can make a file two things at once: only TIFF is sane."""
    preamble = content[:128]
    return content[128:132] == b"DICM" and (not preamble.strip(b"\0") or preamble[:4] in {b"II*\0", b"MM\0*"})


def is_edf(content: Content) -> bool:
    """European Data Format: a header of printable characters, which begins with its version."""
    header = content[:256]
    return len(header) == 256 and header.startswith(b"0       ") and _PRINTABLE.fullmatch(header) is not None
