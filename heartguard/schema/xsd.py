"""XML Schema 1.0 from JSON Schema: the same rules for the contract's XML mapping.

What it cannot say: anything about the inside of a free map but how many entries it has (names and
types of its elements are open), that an integer may be written with an exponent (``1e2``), and that one of several
optional elements must be there.
"""

from collections.abc import Iterable
from typing import Any

from lxml import etree
from lxml.builder import ElementMaker
from lxml.etree import _Element as Element

from .json_schema import Schema, document, error_responses, types_of
from .messages import ANY_TEXT
from .numbers import GRAMMAR, WHOLE
from .shapes import singular

NAMESPACE = "http://www.w3.org/2001/XMLSchema"
XS = ElementMaker(namespace=NAMESPACE, nsmap={"xs": NAMESPACE})

_FACETS = {
    "minLength": "minLength",
    "maxLength": "maxLength",
    "minimum": "minInclusive",
    "maximum": "maxInclusive",
    "exclusiveMinimum": "minExclusive",
    "exclusiveMaximum": "maxExclusive",
}


def xsd(domain: str) -> bytes:
    """The XML Schema of a domain, with a global element for each of its own types."""
    types = {name: schema for name, schema in document(domain)["$defs"].items() if name not in error_responses()}
    roots = sorted(type_.__name__ for type_ in types_of(domain))
    tree = XS.schema(
        *(XS.element(name=name, type=name) for name in roots),
        *(_struct(schema, name=name) for name, schema in types.items()),
        elementFormDefault="qualified",
    )
    return etree.tostring(tree, encoding="UTF-8", xml_declaration=True, pretty_print=True)


def _struct(schema: Schema, **attributes: str) -> Element:
    required = schema.get("required", [])
    elements = [_property(name, part, name in required) for name, part in schema["properties"].items()]
    return XS.complexType(*_documentation(schema), XS.all(*elements), **attributes)


def _property(name: str, schema: Schema, required: bool) -> Element:
    occurs = {} if required else {"minOccurs": "0"}
    if "$ref" in schema:
        return XS.element(name=name, type=_referred(schema), **occurs)
    element = XS.element(*_documentation(schema), name=name, **occurs)
    type_ = _type(name, schema)
    if isinstance(type_, str):
        element.set("type", type_)
    else:
        element.append(type_)
    return element


def _type(name: str, schema: Schema) -> Element | str:
    """A type of its own, or the name of one that is built in."""
    match schema:
        case {"enum": values}:
            return _restriction("xs:string", _facets("enumeration", values))
        case {"anyOf": _}:
            return _mixed()
        case {"type": "array"}:
            return _list(singular(name), schema)
        case {"type": "object"}:
            return _map(schema)
        case {"type": "string", "format": "date-time"}:
            return "xs:dateTime"
        case {"type": "string"}:
            facets = [*_bounds(schema), *_pattern(schema)]
            return _restriction("xs:string", facets) if facets else "xs:string"
        case {"type": "integer"}:
            return _restriction("xs:decimal", _bounds(schema), _facets("pattern", [WHOLE]))
        case {"type": "number"}:
            return _restriction("xs:double", _bounds(schema), _facets("pattern", [GRAMMAR]))
        case {"type": "boolean"}:
            return _restriction("xs:boolean", _facets("pattern", ["true|false"]))
    raise TypeError(f"XML Schema has no type for {schema}")


def _list(item_name: str, schema: Schema) -> Element:
    item = _property(item_name, schema["items"], required=True)
    item.set("minOccurs", str(schema.get("minItems", 0)))
    item.set("maxOccurs", str(schema.get("maxItems", "unbounded")))
    return XS.complexType(XS.sequence(item))


def _map(schema: Schema) -> Element:
    entries = XS.any(
        namespace="##local",
        processContents="skip",
        minOccurs=str(schema.get("minProperties", 0)),
        maxOccurs=str(schema.get("maxProperties", "unbounded")),
    )
    return XS.complexType(XS.sequence(entries))


def _mixed() -> Element:
    """Text that decides its own type, unless the attribute ``type`` does."""
    stated = _restriction("xs:string", _facets("enumeration", ["string", "number", "boolean"]))
    return XS.complexType(
        XS.simpleContent(XS.extension(XS.attribute(stated, name="type"), base="xs:string")),
    )


def _restriction(base: str, *facets: Iterable[Element]) -> Element:
    return XS.simpleType(XS.restriction(*(facet for group in facets for facet in group), base=base))


def _bounds(schema: Schema) -> list[Element]:
    return [
        facet for keyword, name in _FACETS.items() if keyword in schema for facet in _facets(name, [schema[keyword]])
    ]


def _pattern(schema: Schema) -> list[Element]:
    """XML Schema's patterns are of the whole string: they need no anchors. What XML can carry, XML itself sees to."""
    pattern = schema.get("pattern", ANY_TEXT)
    return [] if pattern == ANY_TEXT else _facets("pattern", [pattern.removeprefix("^").removesuffix("$")])


def _facets(name: str, values: Iterable[Any]) -> list[Element]:
    return [XS(name, value=str(value)) for value in values]


def _documentation(schema: Schema) -> list[Element]:
    if "description" not in schema:
        return []
    return [XS.annotation(XS.documentation(schema["description"]))]


def _referred(schema: Schema) -> str:
    return str(schema["$ref"]).rpartition("/")[2]
