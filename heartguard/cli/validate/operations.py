"""The operations that there are, as the published OpenAPI document states them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ...schema import domains
from ...schema.json_schema import types_of
from ...settings import ROOT

PUBLISHED = ROOT / "schemas" / "openapi.json"
ANYTHING = "*/*"
"""What is said of an answer whose media type is that of what was stored."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation. ``answers`` has, by status, the type of each success, None where it has none.

    ``produces`` is the media type of an answer that is neither JSON nor XML by ``Accept``.
    """

    name: str
    method: str
    path: str
    service: str
    public: bool
    request: type[msgspec.Struct] | None
    answers: Mapping[int, type[msgspec.Struct] | None]
    produces: str | None


def operations() -> dict[str, Operation]:
    """By name, which is method and path: ``PUT /users/{id}/role``."""
    types = {type_.__name__: type_ for domain in domains() for type_ in types_of(domain)}
    document = msgspec.json.decode(PUBLISHED.read_bytes())
    found = (
        _operation(f"{method.upper()} {path}", stated, types)
        for path, methods in document["paths"].items()
        for method, stated in methods.items()
        if method in {"get", "post", "put", "delete"}
    )
    return {operation.name: operation for operation in found}


def _operation(name: str, stated: dict[str, Any], types: Mapping[str, type[msgspec.Struct]]) -> Operation:
    method, _, path = name.partition(" ")
    successes = {int(status): said for status, said in stated["responses"].items() if status.startswith("2")}
    typed = {status: _type(said.get("content", {}), types) for status, said in successes.items()}
    content: Mapping[str, Any] = next((said["content"] for said in successes.values() if said.get("content")), {})
    return Operation(
        name=name,
        method=method,
        path=path,
        service=stated["tags"][0],
        public=stated["x-audience"] == "P",
        request=_type(stated.get("requestBody", {}).get("content", {}), types),
        answers=typed,
        produces=None if any(typed.values()) else next(iter(content), None),
    )


def _type(content: Mapping[str, Any], types: Mapping[str, type[msgspec.Struct]]) -> type[msgspec.Struct] | None:
    reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
    return types.get(reference.rpartition("/")[2])
