"""JSON Schema 2020-12 from the types, finished where msgspec's own output falls short."""

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import msgspec
from msgspec import inspect

from .. import models
from ..models.base import Update
from .numbers import LARGEST
from .shapes import bare

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def domains() -> list[str]:
    """The domains that are published: the modules of :mod:`heartguard.models` that hold types of the contract."""
    return sorted(module.name for module in pkgutil.iter_modules(models.__path__) if module.name != "base")


def types_of(domain: str) -> list[type[msgspec.Struct]]:
    """The types of a domain, in the order they are written."""
    module: ModuleType = importlib.import_module(f"{models.__name__}.{domain}")
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__ == module.__name__
    ]


def document(domain: str) -> Schema:
    """The published schema of a domain: all of its types, and what they refer to."""
    defs = definitions(types_of(domain))
    if "Error" in defs:
        defs |= error_responses()
    return {"$schema": DIALECT, "$id": f"urn:heartguard:schema:{domain}", "$defs": dict(sorted(defs.items()))}


def schema_of(type_: type) -> Schema:
    """The schema of one type, complete in itself."""
    return {"$schema": DIALECT, "$ref": f"#/$defs/{type_.__name__}", "$defs": definitions([type_])}


def definitions(types: Sequence[type]) -> dict[str, Schema]:
    """The schemas of ``types`` and of every type they refer to, by name."""
    _, defs = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    for struct in _structs(inspect.multi_type_info(types)):
        properties = defs[struct.cls.__name__]["properties"]
        for field in struct.fields:
            _state_format(properties[field.encode_name], field.type)
        if issubclass(struct.cls, Update):
            defs[struct.cls.__name__]["minProperties"] = 1
    for schema in defs.values():
        _finish(schema)
    return defs


def _structs(types: Sequence[inspect.Type]) -> Iterator[inspect.StructType]:
    for type_ in map(bare, types):
        match type_:
            case inspect.StructType(fields=fields):
                yield type_
                yield from _structs([field.type for field in fields])
            case inspect.ListType(item_type=item):
                yield from _structs([item])


def _state_format(schema: Schema, type_: inspect.Type) -> None:
    """msgspec states the format of times only where their zone is constrained."""
    if isinstance(bare(type_), inspect.DateTimeType):
        schema["format"] = "date-time"


def _finish(schema: Any) -> None:
    """Close objects, bound numbers to doubles, write anchors as ECMA's expressions have them and code as Markdown."""
    if isinstance(schema, list):
        for item in schema:
            _finish(item)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" and "properties" in schema:
        schema["additionalProperties"] = False
    if schema.get("type") == "number":
        schema.setdefault("minimum", -LARGEST)
        schema.setdefault("maximum", LARGEST)
    if isinstance(description := schema.get("description"), str):
        schema["description"] = description.replace("``", "`")
    if isinstance(pattern := schema.get("pattern"), str):
        schema["pattern"] = pattern.replace(r"\A", "^", 1).replace(r"\Z", "$", 1)
    for value in schema.values():
        _finish(value)


def error_responses() -> dict[str, Schema]:
    """The schemas of a failure's JSON body, by name: everywhere, and where InfluxDB's clients write."""
    ours = {"error": {"$ref": "#/$defs/Error"}}
    influx = {
        "code": {"type": "string", "description": "What InfluxDB calls an error of this status"},
        "message": {"type": "string", "description": "The same as `error` has"},
    }
    in_xml = "In XML its content, Error, is the root itself."
    said = {
        "ErrorResponse": ("The JSON body of every failure.", ours),
        "InfluxErrorResponse": (
            "The JSON body of every failure where InfluxDB's clients write: their `code` and `message` before ours.",
            {**influx, **ours},
        ),
    }
    return {
        name: {
            "title": name,
            "description": f"{description} {in_xml}",
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
        for name, (description, properties) in said.items()
    }
