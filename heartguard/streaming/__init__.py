"""Bodies with one property of base64 that is too large to hold in memory.

What the property holds is decoded and written as it comes; the rest of the body, with something
short in its place, is decoded like any other. So a body means, and is judged, just the same as if
it had been read whole.
"""

from collections.abc import Iterable
from typing import TypeVar

from ..codec import decode, decode_tree
from ..errors import Invalid
from ..models.base import Request
from ..models.common import Detail
from ..negotiation import Format
from .base64_text import Base64Text, Sink
from .json_body import JsonBody
from .xml_body import XmlBody

__all__ = ["Sink", "decode_stream"]

R = TypeVar("R", bound=Request)


def decode_stream(pieces: Iterable[bytes], fmt: Format, type_: type[R], name: str, sink: Sink) -> R:
    """A value of ``type_`` whose property ``name`` went to ``sink``, and is some short base64 in the value itself.

    Raises what :func:`heartguard.codec.decode` does, and 413 where all the rest is larger than such a body has reason
    to be. ``sink`` may have been written to all the same.
    """
    text = Base64Text(sink)
    try:
        value = _decode(pieces, fmt, type_, name, text)
    except Invalid as invalid:
        raise Invalid([*invalid.details, *_violations(name, text)], invalid.message, code=invalid.code) from None
    if found := _violations(name, text):
        raise Invalid(found)
    return value


def _decode(pieces: Iterable[bytes], fmt: Format, type_: type[R], name: str, text: Base64Text) -> R:
    if fmt is Format.XML:
        tree = XmlBody(name, text)
        for piece in pieces:
            tree.feed(piece)
        return decode_tree(tree.root(), type_)
    body = JsonBody(name, text)
    for piece in pieces:
        body.feed(piece)
    return decode(body.rest(), fmt, type_)


def _violations(name: str, text: Base64Text) -> list[Detail]:
    return [] if text.is_good else [Detail(path=f"/{name}", message="is not base64 (RFC 4648, padded)")]
