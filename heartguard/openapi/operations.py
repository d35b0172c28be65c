"""One endpoint as an operation of the document."""

import inspect
import uuid
from collections.abc import Iterator
from typing import Any, get_type_hints

from ..endpoint import Endpoint, path_parameters, query_of
from ..models.base import Query
from ..negotiation import Format
from ..policy import Audience
from ..schema import Schema, definitions
from .answers import responses
from .components import reference, relocated
from .examples import Examples

SCHEME = "bearer"

_IN_PATH: dict[type, Schema] = {
    int: {"type": "integer"},
    str: {"type": "string"},
    uuid.UUID: {"type": "string", "format": "uuid"},
}


def operation(endpoint: Endpoint, examples: Examples) -> dict[str, Any]:
    summary, description = _documentation(endpoint)
    found: dict[str, Any] = {
        "tags": [endpoint.service.name],
        "operationId": f"{endpoint.service.name}_{endpoint.name}",
        "summary": summary,
        "x-audience": _audience(endpoint),
        "security": _security(endpoint),
    }
    if description:
        found["description"] = description
    if parameters := [*_path(endpoint), *_query(endpoint), *_conditions(endpoint)]:
        found["parameters"] = parameters
    if endpoint.body:
        found["requestBody"] = _body(endpoint, endpoint.body, examples)
    found["responses"] = responses(endpoint, examples)
    return found


def _documentation(endpoint: Endpoint) -> tuple[str, str]:
    """The view's docstring: its first sentence or line, and the rest."""
    first, _, rest = (inspect.getdoc(endpoint.view) or endpoint.name).replace("``", "`").partition("\n")
    return first.removesuffix("."), rest.strip()


def _audience(endpoint: Endpoint) -> str:
    """Who may call through the gateway, which keeps what is internal for admins."""
    return (Audience.ADMIN if endpoint.audience is Audience.INTERNAL else endpoint.audience).value


def _security(endpoint: Endpoint) -> list[dict[str, list[str]]]:
    if endpoint.audience is not Audience.PUBLIC:
        return [{SCHEME: []}]
    return [{}, {SCHEME: []}] if endpoint.optional_caller else []


def _path(endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    hints = get_type_hints(endpoint.view)
    for name in path_parameters(endpoint.path):
        yield {"name": name, "in": "path", "required": True, "schema": _IN_PATH[hints[name]]}


def _query(endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    if endpoint.query:
        yield from _in_query(endpoint.query)
    for media_type, reader in endpoint.also.items():
        for parameter in _in_query(query_of(reader)):
            yield {**parameter, "description": _only_with(media_type, parameter.get("description"))}


def _in_query(query: type[Query]) -> Iterator[dict[str, Any]]:
    struct = definitions([query])[query.__name__]
    for name, property_ in struct["properties"].items():
        schema = relocated(property_)
        described = {"description": schema.pop("description")} if "description" in schema else {}
        yield {"name": name, "in": "query", "required": name in struct.get("required", []), **described} | {
            "schema": schema
        }


def _only_with(media_type: str, description: str | None) -> str:
    return f"{description}; only with {media_type}" if description else f"Only with {media_type}"


def _conditions(endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    if not endpoint.etag:
        return
    if endpoint.method == "GET":
        name, description = "If-None-Match", "An `ETag`: 304 where nothing has changed since."
    else:
        name, description = "If-Match", "An `ETag`: 412 where something has changed since."
    yield {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}


def _body(endpoint: Endpoint, type_: type, examples: Examples) -> dict[str, Any]:
    content: dict[str, Any] = {
        fmt.value: {"schema": reference(type_), "examples": examples.requests(type_, fmt)} for fmt in Format
    }
    for media_type in endpoint.also:
        text = media_type.startswith("text/")
        content[media_type] = {"schema": {"type": "string"}, **examples.other(media_type)} if text else {}
    content |= {media_type: {"schema": schema} for media_type, schema in endpoint.accepts.items()}
    return {
        "required": True,
        "description": f"At most {_size(endpoint.max_body)}, unpacked; `Content-Encoding: gzip` is understood.",
        "content": content,
    }


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"
