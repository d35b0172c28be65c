"""Every violation in a value, judged by jsonschema-rs and told in words of ours.

jsonschema-rs collects all errors of a value before it returns the first, at about 30 microseconds
and 3 KB each: a body of 16 MiB can hold millions. So each object and list is judged by itself,
one after the other, with what lies inside left out, and no further than :data:`MAX_VIOLATIONS`:
what is good is passed over whole, what is of the wrong kind is not looked into however deeply it
is nested. Its own messages quote the value, which may be a password; they are never used.
"""

import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Any

import jsonschema_rs

from ..models.common import Detail
from .json_schema import Schema, schema_of
from .messages import message
from .pointer import Path, pointer, shortened

MAX_VIOLATIONS = 10_000
"""As many as a batch has points."""

Judge = jsonschema_rs.Draft202012Validator
Kind = jsonschema_rs.ValidationErrorKind
Explain = Callable[[Any, Path], Iterator[Detail]]


def violations(plain: Any, type_: type) -> list[Detail]:
    """What is wrong with ``plain`` (what a JSON parser gives) as a value of ``type_``; nothing, where it is good."""
    return list(islice(_explain(type_)(plain, ()), MAX_VIOLATIONS))


@cache
def _explain(type_: type) -> Explain:
    schema = schema_of(type_)
    return _where_bad(schema, schema["$defs"])


def _where_bad(schema: Schema, defs: dict[str, Schema]) -> Explain:
    """As :func:`_explainer`, but passing over a good value at once."""
    judge, look = _judge(schema, defs), _explainer(schema, defs)

    def explain(value: Any, path: Path) -> Iterator[Detail]:
        if not _is_good(judge, value):
            yield from look(value, path)

    return explain


def _judge(schema: Schema, defs: dict[str, Schema]) -> Judge:
    return Judge({**schema, "$defs": defs}, validate_formats=True)


def _is_good(judge: Judge, value: Any) -> bool:
    try:
        return judge.is_valid(value)
    except ValueError:  # nested deeper than jsonschema-rs follows, and so than any type of the contract
        return False


def _explainer(schema: Schema, defs: dict[str, Schema]) -> Explain:
    if "$ref" in schema:
        schema = defs[schema["$ref"].rpartition("/")[2]]
    match schema:
        case {"properties": properties}:
            return _object(schema, {name: _explainer(part, defs) for name, part in properties.items()})
        case {"type": "object", "additionalProperties": values}:
            return _map(schema, _judge(values, defs), _explainer(values, defs))
        case {"type": "array", "items": items}:
            return _list(schema, _explainer(items, defs))
    return _scalar(schema)


def _object(schema: Schema, parts: dict[str, Explain]) -> Explain:
    judge = Judge({**schema, "properties": dict.fromkeys(parts, True)})

    def explain(value: Any, path: Path) -> Iterator[Detail]:
        if not isinstance(value, dict):
            yield from _details(judge, _emptied(value), schema, path)
            return
        known = [name for name in parts if name in value]
        unknown = islice((name for name in value if name not in parts), MAX_VIOLATIONS)
        yield from _details(judge, dict.fromkeys([*known, *unknown], True), schema, path)
        for name in known:
            yield from parts[name](value[name], (*path, name))

    return explain


def _list(schema: Schema, part: Explain) -> Explain:
    judge = Judge({**schema, "items": True})
    most = schema.get("maxItems", sys.maxsize - 1)

    def explain(value: Any, path: Path) -> Iterator[Detail]:
        if not isinstance(value, list):
            yield from _details(judge, _emptied(value), schema, path)
            return
        yield from _details(judge, [True] * min(len(value), most + 1), schema, path)
        for index, item in enumerate(islice(value, most)):
            yield from part(item, (*path, index))

    return explain


def _map(schema: Schema, items: Judge, part: Explain) -> Explain:
    judge = Judge({**schema, "additionalProperties": True, "propertyNames": True})
    rule = schema.get("propertyNames", {})
    names = Judge(rule)
    most = schema.get("maxProperties", sys.maxsize - 1)

    def explain(value: Any, path: Path) -> Iterator[Detail]:
        if not isinstance(value, dict):
            yield from _details(judge, _emptied(value), schema, path)
            return
        yield from _details(judge, dict.fromkeys(islice(value, most + 1)), schema, path)
        for name, item in islice(value.items(), most):
            if not _is_good(names, name):
                yield from _details(names, name, rule, (*path, name), about="its name ")
            if not _is_good(items, item):
                yield from part(item, (*path, name))

    return explain


def _scalar(schema: Schema) -> Explain:
    judge = Judge(schema, validate_formats=True)

    def explain(value: Any, path: Path) -> Iterator[Detail]:
        stand_in = _emptied(value) if isinstance(value, dict | list) else value
        yield from _details(judge, stand_in, schema, path)

    return explain


def _emptied(value: Any) -> Any:
    """The least value of the same kind, for where only the kind matters."""
    return type(value)()


def _details(judge: Judge, value: Any, schema: Schema, path: Path, about: str = "") -> Iterator[Detail]:
    for error in judge.iter_errors(value):
        match error.kind:
            case Kind.Required(name):
                yield Detail(path=pointer((*path, name)), message="is missing")
            case Kind.AdditionalProperties(names):
                for name in names:
                    yield Detail(path=pointer((*path, name)), message=f"{shortened(name)} is not known here")
            case _:
                yield Detail(path=pointer(path), message=about + message(error, schema))
