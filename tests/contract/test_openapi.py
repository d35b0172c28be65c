"""The OpenAPI document: valid by judges that are not ours, complete, and true of what the services do with it."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from lxml import etree
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from openapi_spec_validator.readers import read_from_filename
from openapi_spec_validator.schemas import schema_v31

from heartguard import __version__, codec
from heartguard.models.base import Request
from heartguard.negotiation import Format
from heartguard.publish import FOLDER, endpoints_of
from heartguard.schema import domains
from heartguard.schema.json_schema import types_of
from heartguard.services import SERVICES

DOCUMENT = json.loads((FOLDER / "openapi.json").read_bytes())
SCHEMAS = DOCUMENT["components"]["schemas"]
TYPES = {type_.__name__: type_ for domain in domains() for type_ in types_of(domain)}
OPERATIONS = {
    (method.upper(), path): operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}


def named(ref: dict[str, Any]) -> str:
    return str(ref["$ref"]).rpartition("/")[2]


def judge(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]}, validate_formats=True)


def test_the_document_is_valid_openapi() -> None:
    validate(DOCUMENT, cls=OpenAPIV31SpecValidator)
    jsonschema_rs.Draft202012Validator(dict(schema_v31)).validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1")
    assert DOCUMENT["info"]["version"] == __version__
    assert DOCUMENT["servers"] == [{"url": "/"}]


def test_tools_that_take_json_for_yaml_can_read_it() -> None:
    """JSON's escapes for what lies beyond U+FFFF are none in YAML, as which many tools read every document."""
    assert read_from_filename(str(FOLDER / "openapi.json"))[0] == DOCUMENT


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_schema_is_json_schema(name: str) -> None:
    jsonschema_rs.meta.validate(SCHEMAS[name])


def test_every_route_is_in_the_document_and_nothing_else() -> None:
    routes = json.loads((FOLDER / "routes.json").read_bytes())["routes"]
    stated = {(route["method"], route["path"]): route["audience"] for route in routes}
    stated |= {(own.method, own.path): own.audience.value for own in endpoints_of(SERVICES["gateway"])}
    told = {key: operation["x-audience"] for key, operation in OPERATIONS.items()}
    assert told == {key: "X" if audience == "I" else audience for key, audience in stated.items()}


def test_operations_can_be_told_apart_and_found() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(ids)) == len(ids)
    assert {tag["name"] for tag in DOCUMENT["tags"]} == {op["tags"][0] for op in OPERATIONS.values()}
    assert all(operation["summary"] != operation["operationId"] for operation in OPERATIONS.values())
    assert all(tag["description"] for tag in DOCUMENT["tags"])


@pytest.mark.parametrize("key", OPERATIONS, ids=" ".join)
def test_an_operation_tells_how_it_can_fail(key: tuple[str, str]) -> None:
    operation = OPERATIONS[key]
    told = set(operation["responses"])
    assert told >= {"400", "408", "414", "429", "431", "503", "505"}, "what any request can meet"
    if key[0] != "GET":
        assert "413" in told, "a body may come where none is wanted"
    if operation["x-audience"] != "P":
        assert operation["security"] == [{"bearer": []}]
        assert told >= {"401", "403"}
    if "requestBody" in operation:
        assert told >= {"415", "422"}
        assert set(operation["requestBody"]["content"]) >= {"application/json", "application/xml"}
    if "{" in key[1]:
        assert "404" in told
        assert {p["name"] for p in operation["parameters"] if p["in"] == "path"} == {
            part[1:-1] for part in key[1].split("/") if part.startswith("{")
        }
    if not key[1].startswith("/gateway/"):
        assert told >= {"502", "504"}
    assert "default" in told


def test_what_only_some_operations_state() -> None:
    write = OPERATIONS["POST", "/timeseries/write"]
    assert write["requestBody"]["content"]["text/plain"]["schema"] == {"type": "string"}
    assert {parameter["name"] for parameter in write["parameters"]} == {"bucket", "precision"}
    profile = OPERATIONS["GET", "/auth/profile"]
    assert [parameter["name"] for parameter in profile["parameters"]] == ["If-None-Match"]
    assert set(profile["responses"]) > {"200", "304", "412"}
    assert "ETag" in profile["responses"]["200"]["headers"]
    assert OPERATIONS["POST", "/auth/register"]["security"] == [{}, {"bearer": []}]
    assert "AUTH_002" in OPERATIONS["POST", "/auth/register"]["responses"]["409"]["description"]
    assert set(OPERATIONS["GET", "/auth/metrics"]["responses"]["200"]["content"]) == {"text/plain"}
    unready = OPERATIONS["GET", "/auth/ready"]["responses"]["503"]["content"]["application/json"]["schema"]
    assert list(map(named, unready["anyOf"])) == ["Ready", "ErrorResponse"]
    assert "content" not in OPERATIONS["POST", "/auth/logout"]["responses"]["204"]
    file = OPERATIONS["GET", "/media/objects/{organization}/{owner}/{id}/{name}"]["responses"]
    assert set(file["200"]["content"]) == set(file["206"]["content"]) == {"*/*"}, "a file has a type of its own"
    assert "content" not in file["304"]


# Examples


def exampled() -> Iterator[Any]:
    """The name of each type that the document gives examples of, with its content in both formats."""
    seen: set[str] = set()
    for operation in OPERATIONS.values():
        for part in [operation.get("requestBody", {}), *operation["responses"].values()]:
            schema = part.get("content", {}).get("application/json", {}).get("schema", {})
            if "$ref" in schema and "examples" in part["content"]["application/json"] and named(schema) not in seen:
                seen.add(named(schema))
                yield pytest.param(named(schema), part["content"], id=named(schema))


EXAMPLED = list(exampled())


@pytest.mark.parametrize(("name", "content"), EXAMPLED)
def test_examples_are_good_and_the_same_in_both_formats(name: str, content: dict[str, Any]) -> None:
    in_json, in_xml = (content[fmt.value]["examples"] for fmt in Format)
    assert in_json.keys() == in_xml.keys()
    for label, example in in_json.items():
        judge({"$ref": f"#/components/schemas/{name}"}).validate(example["value"])
        as_json = codec.decode(msgspec.json.encode(example["value"]), Format.JSON, TYPES[name])
        as_xml = codec.decode(in_xml[label]["value"].encode(), Format.XML, TYPES[name])
        assert as_json == as_xml


@pytest.mark.parametrize(("name", "content"), EXAMPLED)
def test_the_document_says_how_a_type_looks_in_xml(name: str, content: dict[str, Any]) -> None:
    """What a program reads that knows nothing but the document's ``xml`` objects is what stands in JSON."""
    for label, example in content["application/xml"]["examples"].items():
        root = etree.fromstring(example["value"])
        assert root.tag == SCHEMAS[name]["xml"]["name"]
        assert read(root, SCHEMAS[name]) == content["application/json"]["examples"][label]["value"]


def decided(text: str) -> Any:
    """What a text is where the schema allows several types."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def read(element: Any, schema: dict[str, Any]) -> Any:
    """The value of an element by the rules of OpenAPI 3.1."""
    if "$ref" in schema:
        schema = SCHEMAS[named(schema)]
    match schema:
        case {"properties": properties}:
            parts = {part.get("xml", {}).get("name", name): (name, part) for name, part in properties.items()}
            return {parts[child.tag][0]: read(child, parts[child.tag][1]) for child in element}
        case {"type": "array", "items": items, "xml": {"wrapped": True}}:
            assert all(child.tag == items["xml"]["name"] for child in element)
            return [read(child, items) for child in element]
        case {"type": "object", "additionalProperties": values}:
            return {child.tag: read(child, values) for child in element}
        case {"type": "string"} | {"enum": _}:
            return element.text or ""
        case {"anyOf": _}:
            return decided(element.text or "")
    return json.loads(element.text)


def test_every_request_has_an_example() -> None:
    for operation in OPERATIONS.values():
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            assert content.get("examples") or media_type == "multipart/form-data", "only a form cannot be shown"
    requests = {name for name, type_ in TYPES.items() if issubclass(type_, Request)}
    assert requests <= SCHEMAS.keys(), "a request that no endpoint takes"
