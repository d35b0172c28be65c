"""The same value has the same meaning and the same verdict, whoever judges it.

Values are generated from the published JSON Schemas, good ones and ones with a few things broken,
and written as XML by a writer of this file's own. Four judges must then agree: the codec on JSON,
the codec on XML, the JSON Schema (jsonschema-rs) and the XML Schema (libxml2).

What XML Schema 1.0 cannot judge:

- the inside of a free map (names and values of its elements, doubled keys): it is compared with the
  JSON Schema with its maps opened, and so still judges how many entries a map has;
- whether there is at least one of several optional elements: nor is its counterpart asked then;
- integers written with an exponent (``1e2``), which it refuses: none are generated;
- ``xsi:`` attributes and processing instructions, which it lets pass: see ``test_xml.py``.

What XML cannot say (null, a list where there is none in the type, ``"5"`` where a number belongs,
characters outside XML 1.0) is compared between the codec and the JSON Schema only.

One corner stays: an integer of 309 digits that only rounding brings down to the largest double is
read, though the JSON Schema, which compares exactly, refuses it.

``HEARTGUARD_EXAMPLES=100000`` hunts longer, and at random.
"""

import copy
import json
import os
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from heartguard import codec, xml
from heartguard.errors import ServiceError
from heartguard.models.base import XML_CHARACTERS, Answer, Request
from heartguard.negotiation import Format
from heartguard.schema import document, domains, violations, xsd
from heartguard.schema.json_schema import types_of
from heartguard.schema.numbers import number

ANY_TEXT = f"^({XML_CHARACTERS}*)$"
HUNT = "HEARTGUARD_EXAMPLES" in os.environ
THOROUGHLY = settings(
    max_examples=int(os.environ.get("HEARTGUARD_EXAMPLES", "200")),
    deadline=None,
    database=None,
    derandomize=not HUNT,
    suppress_health_check=list(HealthCheck),
)

OWNERS = {type_: domain for domain in domains() for type_ in types_of(domain)}
REQUESTS = [type_ for type_ in OWNERS if issubclass(type_, Request)]
ANSWERS = [type_ for type_ in OWNERS if issubclass(type_, Answer)]


def named(type_: type) -> str:
    return type_.__name__


# Judges


@cache
def json_schema(type_: type) -> dict[str, Any]:
    return {**document(OWNERS[type_]), "$ref": f"#/$defs/{type_.__name__}"}


@cache
def json_judge(type_: type) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(json_schema(type_), validate_formats=True)


@cache
def open_judge(type_: type) -> jsonschema_rs.Draft202012Validator:
    """Judges by the JSON Schema with its free maps opened: what XML Schema can say."""
    return jsonschema_rs.Draft202012Validator(with_open_maps(copy.deepcopy(json_schema(type_))))


def with_open_maps(node: Any) -> Any:
    if isinstance(node, dict):
        if node.get("type") == "object" and "properties" not in node:
            node["additionalProperties"] = True
            node.pop("propertyNames", None)
        if "properties" in node:
            node.pop("minProperties", None)
        for part in node.values():
            with_open_maps(part)
    return node


@cache
def xsd_judge(domain: str) -> etree.XMLSchema:
    return etree.XMLSchema(etree.fromstring(xsd(domain)))


# An XML writer that shares nothing with the kit's


class CannotSay(Exception):
    """XML has no way to write this value, or it would mean something else."""


class Writer:
    """Writes plain values as the mapping of the contract says, by the JSON Schema."""

    def __init__(self, schema: dict[str, Any], *, padding: str, cdata: bool) -> None:
        self.defs = schema["$defs"]
        self.padding = padding
        self.cdata = cdata

    def fill(self, element: etree._Element, value: Any, node: dict[str, Any]) -> None:
        node = self.resolve(node)
        kind = "enum" if "enum" in node else "mixed" if "anyOf" in node else node.get("type")
        if isinstance(value, dict):
            self.fill_with_entries(element, value, node)
        elif isinstance(value, list):
            if kind != "array":
                raise CannotSay
            for item in value:
                self.fill(etree.SubElement(element, str(element.tag)[:-1]), item, node["items"])
        elif kind in ("object", "array"):
            if not isinstance(value, str) or not value.strip(" \t\r\n"):
                raise CannotSay
            self.set_text(element, value)
        elif kind == "mixed":
            self.fill_mixed(element, value)
        else:
            self.fill_scalar(element, value, kind)

    def resolve(self, node: dict[str, Any]) -> dict[str, Any]:
        return self.defs[node["$ref"].rpartition("/")[2]] if "$ref" in node else node

    def fill_with_entries(self, element: etree._Element, value: dict[str, Any], node: dict[str, Any]) -> None:
        properties = node.get("properties", {})
        values = node.get("additionalProperties") or {}
        if node.get("type") != "object" and not value:
            raise CannotSay
        for key, item in value.items():
            child = self.child(element, key, as_entry="properties" not in node)
            self.fill(child, item, properties.get(key, values))

    def child(self, element: etree._Element, key: str, *, as_entry: bool) -> etree._Element:
        if is_name(key):
            return etree.SubElement(element, key)
        if not as_entry:
            raise CannotSay
        try:
            return etree.SubElement(element, "entry", key=key)
        except ValueError:
            raise CannotSay from None

    def fill_mixed(self, element: etree._Element, value: Any) -> None:
        if value is None:
            raise CannotSay
        kind = "string" if isinstance(value, str) else "boolean" if isinstance(value, bool) else "number"
        if kind == "string" or self.cdata:
            element.set("type", kind)
        self.set_text(element, value if isinstance(value, str) else json.dumps(value))

    def fill_scalar(self, element: etree._Element, value: Any, kind: str | None) -> None:
        if value is None:
            raise CannotSay
        if kind in ("integer", "number", "boolean"):
            if isinstance(value, str) and reads_as(value, kind):
                raise CannotSay
            text = value if isinstance(value, str) else json.dumps(value)
            self.set_text(element, self.padding + text + self.padding)
        elif kind is None or isinstance(value, str):
            self.set_text(element, str(value))
        else:
            raise CannotSay

    def set_text(self, element: etree._Element, text: str) -> None:
        try:
            element.text = etree.CDATA(text) if self.cdata and "\r" not in text and "]]>" not in text else text
        except ValueError:
            raise CannotSay from None


def is_name(key: str) -> bool:
    try:
        etree.QName(key)
    except ValueError:
        return False
    return "{" not in key  # (lxml reads "{}a" as "a" in no namespace)


def reads_as(text: str, kind: str) -> bool:
    try:
        value = json.loads(text.strip(" \t\r\n"))
    except ValueError:
        return False
    return isinstance(value, bool) if kind == "boolean" else isinstance(value, int | float)


def write(type_: type, plain: Any, *, padding: str = "", cdata: bool = False, indented: bool = False) -> bytes:
    root = etree.Element(type_.__name__)
    schema = json_schema(type_)
    Writer(schema, padding=padding, cdata=cdata).fill(root, plain, {"$ref": schema["$ref"]})
    if indented:
        etree.indent(root)
        root.insert(0, etree.Comment("indented"))
    return etree.tostring(root, encoding="UTF-8", xml_declaration=indented)


# Values

characters = st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\ufffe\uffff").filter(
    lambda character: ord(character) >= 32 or character in "\t\n\r"
)
alphabet = st.one_of(st.sampled_from(" \t\n\r<>&\"'/]:aZ09_-.{}\u00a0\u0085\u2028é😀\u200b\ufeff"), characters)
texts = st.one_of(st.text(alphabet, max_size=12), st.sampled_from(["5", "true", " 5 ", "1e5", "null", "]]>", "NaN"]))
keys = st.one_of(st.sampled_from(["bpm", "user_id", "entry", "a b", "é", "xml", "x:y", "", "key", "1"]), texts)
numbers = st.one_of(
    st.integers(-(10**6), 10**6),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-1000, 1000).map(float),
    st.sampled_from([0, -0.0, 1, 5.0, 1e15, 2**53, 10**400, -(10**400), 10**309, 1.7976931348623157e308, 5e-324]),
)
LENGTHS = (0, 1, 63, 64, 65, 100, 101, 254, 255, 256, 257, 500, 501, 4096, 4097)
stretched = st.builds(lambda unit, length: unit * length, st.sampled_from("aZ0é😀 "), st.sampled_from(LENGTHS))
unlike_xml = st.sampled_from(["\x00", "a\x0bb", "\x1f", "\ufffe", "\uffff", "\b", "\f"])
near_misses = st.sampled_from(
    [
        "2024-06-01T10:00:00Z",
        "2024-06-01T10:00:00Z\n",
        "2024-02-30T00:00:00Z",
        " -1h",
        "1h",
        "now()",
        "a@b.co",
        "a@b.co ",
    ]
)
names = st.one_of(st.sampled_from(["bpm", "extra", "emails", "a.b", "entry"]), keys, unlike_xml)
strings = st.one_of(texts, stretched, near_misses)
junk = st.one_of(
    strings,
    numbers,
    st.booleans(),
    unlike_xml,
    st.none(),
    st.sampled_from([[], {}, {"a": "b"}, [{}], ["a"], {"a": {"b": 1}}, [1], " ", "\n"]),
)


def changed(value: Any) -> st.SearchStrategy[Any]:
    """Something in the place of ``value``: most often of the same kind, so that XML can say it too."""
    if isinstance(value, str):
        near = st.one_of(
            strings, st.sampled_from([f"{value}\n", f" {value}", value.upper(), value[:-1], value + value])
        )
    elif isinstance(value, list) and value:
        near = st.sampled_from([[], value[:1], value * 100, value * 300])
    elif isinstance(value, dict):
        near = st.sampled_from([{}, {**value, **{f"k{n}": "v" for n in range(65)}}, {f"k{n}": 1.5 for n in range(257)}])
    else:
        near = numbers
    return st.one_of(near, near, near, junk)


@cache
def good_values(type_: type) -> st.SearchStrategy[Any]:
    schema = json_schema(type_)
    return good({"$ref": schema["$ref"]}, schema["$defs"])


def good(node: dict[str, Any], defs: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that the JSON Schema accepts."""
    if "$ref" in node:
        return good(defs[node["$ref"].rpartition("/")[2]], defs)
    if "anyOf" in node:
        return st.one_of([good(part, defs) for part in node["anyOf"]])
    if "enum" in node:
        return st.sampled_from(node["enum"])
    match node["type"]:
        case "object" if "properties" in node:
            parts = {name: good(part, defs) for name, part in node["properties"].items()}
            required = node.get("required", [])
            found = st.fixed_dictionaries(
                {name: part for name, part in parts.items() if name in required},
                optional={name: part for name, part in parts.items() if name not in required},
            )
            return found.filter(len) if "minProperties" in node else found
        case "object":
            return st.dictionaries(
                keys, good(node["additionalProperties"], defs), min_size=node.get("minProperties", 0), max_size=4
            )
        case "array":
            return st.lists(good(node["items"], defs), min_size=node.get("minItems", 0), max_size=4)
        case "string":
            return good_text(node)
        case "boolean":
            return st.booleans()
        case "number":
            return st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**30), 10**30))
    low, high = node.get("minimum", -(2**53)), node.get("maximum", 2**53)
    return st.one_of(st.integers(low, high), st.integers(low, high).map(float), st.sampled_from([low, high]))


@cache
def texts_by(pattern: str) -> st.SearchStrategy[str]:
    if "\ud7ff" in pattern:  # over all of Unicode: to build such a strategy takes half a minute
        return st.one_of(texts, stretched).filter(lambda text: re.search(pattern, text) is not None)
    return st.from_regex(pattern.removeprefix("^").removesuffix("$"), fullmatch=True)


def good_text(node: dict[str, Any]) -> st.SearchStrategy[str]:
    low, high = node.get("minLength", 0), node.get("maxLength", 5000)
    pattern = node.get("pattern", ANY_TEXT)
    if node.get("format") == "date-time":
        return st.datetimes().map(lambda time: time.isoformat() + "Z")
    if node.get("format") == "uuid":
        return st.uuids().map(str)
    strategy = texts_by(pattern) if pattern != ANY_TEXT else st.one_of(texts, stretched)
    return strategy.filter(lambda text: low <= len(text) <= high)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in ``value`` with each of its keys."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield value, key
            yield from places(item)


@st.composite
def plain_values(draw: st.DrawFn, type_: type) -> Any:
    """A good value of the type, with up to two things changed."""
    value = draw(good_values(type_))
    for _ in range(draw(st.sampled_from([1, 0, 1, 2, 3]))):
        found = list(places(value))
        if not found:
            break
        container, key = draw(st.sampled_from(found))
        change = draw(st.sampled_from(["replace", "remove", "add", "rename", "replace"]))
        if change == "replace":
            container[key] = copy.deepcopy(draw(changed(container[key])))
        elif change == "add" and isinstance(container, dict):
            container[draw(names)] = copy.deepcopy(draw(changed("")))
        elif change == "rename" and isinstance(container, dict):
            container[draw(names)] = container.pop(key)
        else:
            del container[key]
    return value


# What must hold


def verdict(body: bytes, fmt: Format, type_: type) -> tuple[int, bytes]:
    """The status that the codec gives, and the value as JSON."""
    try:
        return 200, msgspec.json.encode(codec.decode(body, fmt, type_))
    except ServiceError as error:
        return error.status if error.details else 0, b""


@pytest.mark.parametrize("type_", REQUESTS, ids=named)
@THOROUGHLY
@given(data=st.data(), padding=st.sampled_from(["", " ", "\n\t"]), cdata=st.booleans(), indented=st.booleans())
def test_every_judge_says_the_same(type_: type, data: st.DataObject, padding: str, cdata: bool, indented: bool) -> None:
    plain = data.draw(plain_values(type_))
    accepted = json_judge(type_).is_valid(plain)
    assert bool(violations(plain, type_)) is not accepted
    for ensure_ascii in (True, False):
        body = json.dumps(plain, ensure_ascii=ensure_ascii).encode()
        from_json = verdict(body, Format.JSON, type_)
        assert from_json[0] == (200 if accepted else 422)
    try:
        written = write(type_, plain, padding=padding, cdata=cdata, indented=indented)
    except CannotSay:
        return
    assert verdict(written, Format.XML, type_) == from_json
    tree = etree.fromstring(written)
    assert xsd_judge(OWNERS[type_]).validate(tree) is open_judge(type_).is_valid(plain)


@pytest.mark.parametrize("type_", ANSWERS, ids=named)
@THOROUGHLY
@given(data=st.data())
def test_an_answer_means_the_same_in_both_formats(type_: type[Answer], data: st.DataObject) -> None:
    # The services answer no integers beyond 64 bits: what is larger is a double.
    drawn = json.loads(json.dumps(data.draw(good_values(type_))), parse_int=number)
    answer = msgspec.convert(drawn, type_, strict=False)
    as_json, as_xml = codec.encode(answer, Format.JSON), codec.encode(answer, Format.XML)
    assert json_judge(type_).is_valid(json.loads(as_json))
    xsd_judge(OWNERS[type_]).assertValid(etree.fromstring(as_xml))
    plain, found = xml.parse(as_xml, type_)
    assert found == []
    assert codec.encode(msgspec.convert(plain, type_), Format.JSON) == as_json


@pytest.mark.parametrize("type_", REQUESTS, ids=named)
def test_the_generator_reaches_both_verdicts(type_: type) -> None:
    """Guards the tests above against becoming vacuous."""
    seen = {True: 0, False: 0}

    @settings(max_examples=100, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def count(data: st.DataObject) -> None:
        plain = data.draw(plain_values(type_))
        try:
            write(type_, plain)
        except CannotSay:
            return
        seen[json_judge(type_).is_valid(plain)] += 1

    count()
    assert min(seen.values()) >= 3, seen
