"""A request's body, read whole."""

import zlib

from flask import request

from .errors import Malformed, ServiceError


def read_limited(limit: int) -> bytes:
    """The request's body, unpacked where it is gzip; more than ``limit`` bytes is a 413, before they are in memory."""
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", ""}:
        raise ServiceError(415, "Content-Encoding can be gzip or identity")
    request.max_content_length = limit
    body = request.stream.read(limit + 1)
    if len(body) > limit:
        raise ServiceError(413)
    if len(body) < (request.content_length or 0):  # the web server reports a broken connection as the body's end
        raise Malformed("The body is shorter than its Content-Length")
    if encoding == "gzip":
        return gunzip(body, limit)
    return body


def gunzip(packed: bytes, limit: int) -> bytes:
    """Unpack at most ``limit`` bytes."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        body = unpacker.decompress(packed, limit + 1)
    except zlib.error:
        raise Malformed("The body is not gzip") from None
    if len(body) > limit:
        raise ServiceError(413)
    if not unpacker.eof or unpacker.unused_data:
        raise Malformed("The gzip body is cut short or has something behind its end")
    return body
