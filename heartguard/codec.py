"""Bodies in and out, the same in JSON and in XML.

The fast path decodes straight into the type. Where that fails, the slow path lists every
violation by the type's published JSON Schema, an independent judge.

One thing means something else in each: of a key that JSON repeats the last value counts, as
most parsers of JSON have it, whereas a repeated element of XML is a violation. To see repeated
keys takes a second look at every key of every good body.
"""

import re
from typing import Any, TypeVar

import msgspec
from lxml.etree import _Element as Element

from . import xml
from .errors import Invalid, Malformed, ServiceError
from .models.common import Detail, Error
from .negotiation import Format
from .schema import violations
from .schema.numbers import as_double, number

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_untyped = msgspec.json.Decoder(float_hook=number)

MAX_VALUES = 500_000
"""As many as XML may have elements. Only a body to be explained has to keep to it.

An untyped value takes some 70 bytes and a microsecond: 16 MiB can hold sixteen million.
"""

_MAY_HOLD_WHAT_XML_CANNOT = re.compile(rb"\\(?:[bf]|u(?:00(?:0[0-8bBcCeEfF]|1)|[fF]{3}[eEfF]))|\xef\xbf[\xbe\xbf]")


def decode(body: bytes, fmt: Format, type_: type[T]) -> T:
    """A value of ``type_``. Raises :class:`Malformed` (400), or :class:`Invalid` (422) naming every violation."""
    if fmt is Format.XML:
        return _decode_xml(body, type_)
    if not body:
        raise Malformed("The body is empty")
    if (b"\\" in body or b"\xef" in body) and _MAY_HOLD_WHAT_XML_CANNOT.search(body):  # the expression is slow
        return _judge(_parse_json(body), type_)
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.ValidationError:
        return _judge(_parse_json(body), type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(_not_json(error)) from None


def _parse_json(body: bytes) -> Any:
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise ServiceError(413, f"The body has more than {MAX_VALUES} values")
    try:
        return _with_doubles(_untyped.decode(body))
    except msgspec.ValidationError:
        raise Invalid([Detail(path="", message="has an integer of more digits than can be read")]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(_not_json(error)) from None


def _with_doubles(plain: Any) -> Any:
    """``plain`` with the integers that only a double is asked to hold made one, as :func:`number` does for XML."""
    root = [plain]
    containers: list[Any] = [root]
    while containers:
        container = containers.pop()
        for key, value in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(value, dict | list):
                containers.append(value)
            elif type(value) is int:
                container[key] = as_double(value)
    return root[0]


def _not_json(error: Exception) -> str:
    match error:
        case msgspec.DecodeError():
            return f"The body is not JSON: {error}"
        case RecursionError():
            return "The body is nested too deeply"
    return "The body is not in UTF-8"


def _decode_xml(body: bytes, type_: type[T]) -> T:
    return _from_xml(*xml.parse(body, type_), type_)


def decode_tree(root: Element, type_: type[T]) -> T:
    """The same for an XML document that was read already."""
    return _from_xml(*xml.interpret(root, type_), type_)


def _from_xml(plain: Any, found: list[Detail], type_: type[T]) -> T:
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


def encode_error(error: Error, fmt: Format, influx_code: str | None = None) -> bytes:
    """The body of a failure; in JSON it stands under the key ``error``.

    With ``influx_code``, that and the message stand before it, where InfluxDB's clients look for them. In XML the
    message is at the top already.
    """
    if fmt is Format.XML:
        return xml.dumps(error)
    beside = {} if influx_code is None else {"code": influx_code, "message": error.message}
    return _encoder.encode({**beside, "error": error})
