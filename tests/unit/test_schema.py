"""The schemas as generated, and what they say is wrong with a value."""

from datetime import datetime
from typing import Annotated, Any

import jsonschema_rs
import pytest
from lxml import etree
from msgspec import Meta

from heartguard.models import common
from heartguard.models.base import UNSET, Answer, Request, Text, UnsetType
from heartguard.models.timeseries import MAX_POINTS, Point, QueryRequest, WriteRequest
from heartguard.schema import document, domains, violations, xsd
from heartguard.schema.json_schema import definitions, schema_of
from heartguard.schema.violations import MAX_VIOLATIONS


class Part(Answer):
    """A ``part``."""

    at: datetime
    later: datetime | UnsetType = UNSET


class Sample(Request):
    ratio: float
    parts: list[Part] = []
    scores: Annotated[dict[str, Annotated[int, Meta(ge=0, le=10)]], Meta(max_length=2)] = {}
    code: Annotated[str, Meta(min_length=2, max_length=3)] = "ab"
    words: Annotated[list[Text], Meta(min_length=2)] | UnsetType = UNSET


GOOD_PART = {"at": "2024-06-01T10:00:00Z"}


def found(plain: Any, type_: type = Sample) -> list[tuple[str, str]]:
    return [(detail.path, detail.message) for detail in violations(plain, type_)]


def test_times_have_their_format_and_optional_properties_no_null() -> None:
    part = definitions([Sample])["Part"]
    assert part == {
        "title": "Part",
        "description": "A `part`.",
        "type": "object",
        "properties": {
            "at": {"type": "string", "format": "date-time"},
            "later": {"type": "string", "format": "date-time"},
        },
        "required": ["at"],
        "additionalProperties": False,
    }


def test_numbers_are_bounded_to_doubles() -> None:
    ratio = definitions([Sample])["Sample"]["properties"]["ratio"]
    assert ratio == {"type": "number", "minimum": -1.7976931348623157e308, "maximum": 1.7976931348623157e308}


def test_patterns_are_anchored_as_ecma_has_it() -> None:
    limits = definitions([QueryRequest])["QueryRequest"]["properties"]
    assert limits["bucket"]["pattern"] == "^([a-z0-9_]{1,64})$"
    assert limits["tags"]["propertyNames"]["pattern"].startswith("^(")


@pytest.mark.parametrize("domain", domains())
def test_schemas_are_schemas(domain: str) -> None:
    schema = document(domain)
    assert schema["$id"] == f"urn:heartguard:schema:{domain}"
    jsonschema_rs.meta.validate(schema)
    etree.XMLSchema(etree.fromstring(xsd(domain)))


def test_the_domains_are_the_modules_with_types() -> None:
    assert domains() == ["audit_event", "auth_token", "common", "media_item", "organization", "timeseries", "user"]


@pytest.mark.parametrize(
    ("plain", "expected"),
    [
        ([], [("", "must be an object")]),
        ("x", [("", "must be an object")]),
        ({}, [("/ratio", "is missing")]),
        ({"ratio": "x"}, [("/ratio", "must be a number")]),
        ({"ratio": None}, [("/ratio", "must be a number")]),
        ({"ratio": {"a": 1}}, [("/ratio", "must be a number")]),
        ({"ratio": 10**309}, [("/ratio", "must be at most 1.7976931348623157e+308")]),
        ({"ratio": 1, "a/b~c": 1}, [("/a~1b~0c", "a/b~c is not known here")]),
        ({"ratio": 1, "parts": {}}, [("/parts", "must be a list")]),
        ({"ratio": 1, "parts": [GOOD_PART, {}, 5]}, [("/parts/1/at", "is missing"), ("/parts/2", "must be an object")]),
        ({"ratio": 1, "parts": [{"at": "now"}]}, [("/parts/0/at", "must be of the form that the schema states")]),
        ({"ratio": 1, "scores": []}, [("/scores", "must be an object")]),
        ({"ratio": 1, "scores": {"a": 1, "b": 2.5}}, [("/scores/b", "must be an integer")]),
        ({"ratio": 1, "scores": {"a": -1}}, [("/scores/a", "must be at least 0")]),
        ({"ratio": 1, "scores": {"a": 11}}, [("/scores/a", "must be at most 10")]),
        ({"ratio": 1, "scores": {"a": 1, "b": 1, "c": 1}}, [("/scores", "must have at most 2 entries")]),
        ({"ratio": 1, "code": "a"}, [("/code", "must have at least 2 characters")]),
        ({"ratio": 1, "code": "abcd"}, [("/code", "must have at most 3 characters")]),
        ({"ratio": 1, "words": ["a"]}, [("/words", "must have at least 2 items")]),
        ({"ratio": 1, "words": ["a", "\x00"]}, [("/words/1", "must not have characters that XML cannot carry")]),
    ],
)  # fmt: skip
def test_violations(plain: Any, expected: list[tuple[str, str]]) -> None:
    assert found(plain) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "must be a number, a boolean or a string"),
        (None, "must be a number, a boolean or a string"),
        (-(10**309), "must be at least -1.7976931348623157e+308"),
        ("\x00", "must not have characters that XML cannot carry"),
    ],
)
def test_of_several_types_the_nearest_is_explained(value: Any, message: str) -> None:
    assert found({"measurement": "a", "fields": {"x": value}}, Point) == [("/fields/x", message)]


def test_names_of_entries_are_judged_too() -> None:
    assert found({"measurement": "a", "fields": {"\x00": 1}}, Point) == [
        ("/fields/\x00", "its name must not have characters that XML cannot carry")
    ]


def test_long_names_are_shortened() -> None:
    ((path, message),) = found({"ratio": 1, "n" * 5000: 1})
    assert path == "/" + "n" * 100 + "…"
    assert message == "n" * 100 + "… is not known here"


def test_every_bad_point_of_a_batch_is_named() -> None:
    points = [{"measurement": "a", "fields": {}} for _ in range(MAX_POINTS)]
    details = violations({"points": points}, WriteRequest)
    assert [detail.path for detail in details] == [f"/points/{n}/fields" for n in range(MAX_POINTS)]


def test_the_list_of_violations_is_bounded() -> None:
    """Neither the number of violations nor the work for those beyond it grows with the body."""
    hostile = {"points": [{"fields": {f"f{n}": [] for n in range(1000)}}] * 100_000}
    assert len(violations(hostile, WriteRequest)) == MAX_VIOLATIONS


def test_unbounded_lists_and_maps_are_judged_to_the_end() -> None:
    parts: list[Any] = [GOOD_PART] * (MAX_VIOLATIONS + 1)
    assert found({"ratio": 1, "parts": parts}) == []
    assert found({"ratio": 1, "parts": [*parts, 5]}) == [(f"/parts/{len(parts)}", "must be an object")]


def test_what_xml_schema_cannot_be_generated_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing(Answer):
        nothing: None

    monkeypatch.setattr(Nothing, "__module__", common.__name__)
    monkeypatch.setattr(common, "Nothing", Nothing, raising=False)
    with pytest.raises(TypeError, match="no type"):
        xsd("common")


def test_a_schema_is_complete_in_itself() -> None:
    schema = schema_of(Sample)
    assert jsonschema_rs.is_valid(schema, {"ratio": 1, "parts": [GOOD_PART]})
    assert not jsonschema_rs.is_valid(schema, {"ratio": 1, "parts": [{}]})
