"""Bodies in and out, the same in JSON and in XML.

The fast path decodes straight into the type. Where that fails, the slow path lists every
violation by the type's published JSON Schema, an independent judge.
"""

import re
from typing import Any, TypeVar

import msgspec

from . import xml
from .errors import Invalid, Malformed, ServiceError
from .models.common import Detail, Error
from .negotiation import Format
from .schema import violations
from .schema.numbers import number

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_untyped = msgspec.json.Decoder(float_hook=number)

MAX_VALUES = 2_000_000
"""Untyped values take some 70 bytes each: 16 MiB of empty objects would otherwise fill most of a gigabyte."""

_ESCAPE = re.compile(rb"\\[ubf]")


def decode(body: bytes, fmt: Format, type_: type[T]) -> T:
    """A value of ``type_``. Raises :class:`Malformed` (400), or :class:`Invalid` (422) naming every violation."""
    if fmt is Format.XML:
        return _decode_xml(body, type_)
    if not body:
        raise Malformed("The body is empty")
    if _may_hold_what_xml_cannot(body):
        return _judge(_parse_json(body), type_)
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.ValidationError:
        return _judge(_parse_json(body), type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(_not_json(error)) from None


def _may_hold_what_xml_cannot(body: bytes) -> bool:
    """Looks for single bytes first, which takes next to no time, and enough for most bodies."""
    if b"\\" in body and _ESCAPE.search(body):
        return True
    return b"\xef" in body and (b"\xef\xbf\xbe" in body or b"\xef\xbf\xbf" in body)


def _parse_json(body: bytes) -> Any:
    if body.count(b",") > MAX_VALUES:
        raise ServiceError(413, f"The body has more than {MAX_VALUES} values")
    try:
        return _untyped.decode(body)
    except msgspec.ValidationError:
        raise Invalid([Detail(path="", message="has an integer of more digits than can be read")]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(_not_json(error)) from None


def _not_json(error: Exception) -> str:
    match error:
        case msgspec.DecodeError():
            return f"The body is not JSON: {error}"
        case RecursionError():
            return "The body is nested too deeply"
    return "The body is not in UTF-8"


def _decode_xml(body: bytes, type_: type[T]) -> T:
    plain, found = xml.parse(body, type_)
    if found:
        raise Invalid([*found, *violations(plain, type_)])
    try:
        return msgspec.convert(plain, type_)
    except msgspec.ValidationError:
        return _judge(plain, type_)


def _judge(plain: Any, type_: type[T]) -> T:
    """``plain`` (what a JSON parser gives) as the type, if the schema finds nothing wrong with it.

    Not strict, because JSON Schema counts ``5.0`` as an integer; the judge has refused all else that this lets pass.
    """
    if found := violations(plain, type_):
        raise Invalid(found)
    try:
        return msgspec.convert(plain, type_, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid([Detail(path="", message=str(error))]) from None


def encode(value: msgspec.Struct, fmt: Format) -> bytes:
    """The body of an answer."""
    return _encoder.encode(value) if fmt is Format.JSON else xml.dumps(value)


def encode_error(error: Error, fmt: Format) -> bytes:
    """The body of a failure; in JSON it stands under the key ``error``."""
    return _encoder.encode({"error": error}) if fmt is Format.JSON else xml.dumps(error)
