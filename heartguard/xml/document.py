"""An untrusted XML document, read without fetching or expanding anything."""

import re
from typing import Any

from lxml import etree
from lxml.etree import _Element as Element

from ..errors import Malformed, ServiceError

MAX_ELEMENTS = 500_000
"""A tree takes about 250 bytes for each: 16 MiB of empty elements would otherwise fill a gigabyte."""

SPACE = " \t\r\n"
"""What XML counts as white space; Python's ``strip`` would take more."""

_DECLARATION = re.compile(rb"(?:\xef\xbb\xbf)?(?:<\?xml[ \t\r\n]([^>]*)\?>)?")
_SPACE = re.compile(rb"[ \t\r\n]*")
_ENCODING = re.compile(rb"encoding\s*=\s*[\"']([^\"']*)")


def read(body: bytes) -> Element:
    """The root element. Raises :class:`Malformed` for what is not well formed or not allowed at all.

    What comes before the root is looked at before the parser sees anything, so that no document
    type, and therefore no entity, ever reaches it.
    """
    if not body.strip():
        raise Malformed("The body is empty")
    if body.count(b"<") - body.count(b"</") > MAX_ELEMENTS:
        raise ServiceError(413, f"The body has more than {MAX_ELEMENTS} elements")
    check_before_root(body)
    root = _parse(body)
    if _has_instructions(root):
        raise Malformed("XML with processing instructions is not accepted")
    return root


def check_before_root(body: bytes) -> None:
    """Refuse what may come before the root but not here; ``body`` may end anywhere behind the root's beginning."""
    found = _DECLARATION.match(body)
    assert found is not None
    declared = _ENCODING.search(found[1] or b"")
    if declared and declared[1].lower() != b"utf-8":
        raise ServiceError(415)
    position = _skip_comments(body, found.end())
    follows = body[position : position + 2]
    if follows == b"<!":
        raise Malformed("XML with a document type is not accepted")
    if follows == b"<?":
        raise Malformed("XML with processing instructions is not accepted")


def _skip_comments(body: bytes, position: int) -> int:
    """Where something begins that is neither white space nor a comment."""
    while True:
        space = _SPACE.match(body, position)
        assert space is not None
        position = space.end()
        if not body.startswith(b"<!--", position):
            return position
        end = body.find(b"-->", position + 4)
        if end < 0:
            raise Malformed("The body is not well-formed XML: a comment has no end")
        position = end + 3


def _parse(body: bytes) -> Element:
    try:
        root: Element = etree.fromstring(body, new_parser())
    except etree.XMLSyntaxError as error:
        raise refusal(error) from None
    return root


def new_parser(**options: Any) -> Any:
    """A parser of untrusted XML."""
    return etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        **options,
    )


def refusal(error: etree.XMLSyntaxError) -> Malformed:
    """What the client hears of it; libxml2's own message quotes the body."""
    line, column = error.position
    return Malformed(f"The body is not well-formed XML (line {line}, column {column})")


def _has_instructions(root: Element) -> bool:
    inside = next(root.iter(etree.ProcessingInstruction), None)
    return inside is not None or root.getnext() is not None
