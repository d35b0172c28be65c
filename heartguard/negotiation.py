"""Which of the two formats a client asks for, and which one it sends."""

from enum import Enum
from functools import lru_cache

from werkzeug.http import parse_accept_header, parse_options_header

from .errors import ServiceError


class Format(Enum):
    JSON = "application/json"
    XML = "application/xml"


_NAMES = {"application/json": Format.JSON, "application/xml": Format.XML, "text/xml": Format.XML}


LONGEST = 1024
"""Characters of an ``Accept`` that is read; reading costs time, and what has been read is remembered."""


def negotiate(accept: str | None) -> Format | None:
    """The format of the answer (RFC 9110, section 12.5.1); a tie goes to JSON, nothing acceptable is None.

    Too long an ``accept`` is treated as absent.
    """
    return _negotiated(accept) if accept and len(accept) <= LONGEST else Format.JSON


@lru_cache(maxsize=512)
def _negotiated(accept: str) -> Format | None:
    if accept == "*/*":
        return Format.JSON
    ranges = parse_accept_header(accept)
    json, xml = (max(_quality(ranges, name) for name, f in _NAMES.items() if f is fmt) for fmt in Format)
    if max(json, xml) <= 0:
        return None
    return Format.JSON if json >= xml else Format.XML


def _quality(ranges: object, media_type: str) -> float:
    """The quality that the most specific matching range gives the media type."""
    main = media_type.partition("/")[0]
    specificity = {media_type: 3, f"{main}/*": 2, "*/*": 1}
    best, quality = 0, 0.0
    for value, q in ranges:  # type: ignore[attr-defined]
        rank = specificity.get(value.partition(";")[0].strip().lower(), 0)
        if rank > best:
            best, quality = rank, q
    return quality


def content_type(header: str | None) -> tuple[str, str]:
    """Media type and charset of a request body, both in lower case; the charset is UTF-8 where none is given."""
    media_type, options = parse_options_header(header)
    return media_type.lower(), options.get("charset", "utf-8").lower()


def format_of(header: str | None) -> Format:
    """The format of a request body. Anything but JSON or XML in UTF-8 is a 415."""
    media_type, charset = content_type(header)
    found = _NAMES.get(media_type)
    if found is None or charset not in {"utf-8", "utf8"}:
        raise ServiceError(415)
    return found
