"""The types as components of the document: the published JSON Schemas, with the XML mapping said beside."""

from collections.abc import Sequence
from typing import Any

from ..models.common import Error
from ..schema import Schema, definitions, error_responses
from ..schema.shapes import singular

PLACE = "#/components/schemas/"


def components(types: Sequence[type]) -> dict[str, Schema]:
    """The schemas of ``types``, of all that they refer to, and of the errors, by name."""
    schemas = definitions([*dict.fromkeys([*types, Error])])
    for name, schema in schemas.items():
        schema["xml"] = {"name": name}
        _map_to_xml(schema["properties"])
    schemas |= error_responses()
    return {name: relocated(schemas[name]) for name in sorted(schemas)}


def reference(type_: type) -> Schema:
    return {"$ref": PLACE + type_.__name__}


def relocated(schema: Any) -> Any:
    """``schema`` with its references pointing at the document's components."""
    match schema:
        case list():
            return [relocated(item) for item in schema]
        case {"$ref": str(ref), **rest}:
            return {"$ref": PLACE + ref.rpartition("/")[2], **rest}
        case dict():
            return {key: relocated(value) for key, value in schema.items()}
    return schema


def _map_to_xml(properties: dict[str, Schema]) -> None:
    """A list is wrapped, its items named in the singular; a property keeps its own name, not its type's.

    OpenAPI cannot say that a map's key which is no XML name becomes ``<entry key="…">``.
    """
    for name, schema in properties.items():
        if schema.get("type") == "array":
            schema["xml"] = {"name": name, "wrapped": True}
            schema["items"]["xml"] = {"name": singular(name)}
        elif "$ref" in schema:
            schema["xml"] = {"name": name}
