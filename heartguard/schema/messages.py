"""What a broken rule of a schema is called. No message says what the value was."""

import jsonschema_rs

from ..models.base import XML_CHARACTERS
from .json_schema import Schema

ANY_TEXT = f"^({XML_CHARACTERS}*)$"
"""The published pattern of :data:`heartguard.models.base.Text`."""

Kind = jsonschema_rs.ValidationErrorKind

_ARTICLES = {"array": "a list", "integer": "an integer", "object": "an object"}

_LIMITS = {
    "minLength": "must have at least {limit} characters",
    "maxLength": "must have at most {limit} characters",
    "minItems": "must have at least {limit} items",
    "maxItems": "must have at most {limit} items",
    "minProperties": "must have at least {limit} entries",
    "maxProperties": "must have at most {limit} entries",
    "minimum": "must be at least {limit}",
    "maximum": "must be at most {limit}",
}


def message(error: jsonschema_rs.ValidationError, schema: Schema) -> str:
    """What the value at fault must be by ``schema``, in a few words."""
    match error.kind:
        case Kind.Type(types):
            return "must be " + _either(types)
        case Kind.Enum(options):
            return "must be one of " + ", ".join(map(str, options))
        case Kind.AnyOf(branches):
            return _nearest(branches, schema)
        case Kind.Pattern(pattern) if pattern == ANY_TEXT:
            return "must not have characters that XML cannot carry"
        case Kind.MinLength(1) | Kind.MinItems(1) | Kind.MinProperties(1):
            return "must not be empty"
        case kind if kind.name in _LIMITS:
            return _LIMITS[kind.name].format(**kind.as_dict())
    return _described(schema)


def _nearest(branches: list[list[jsonschema_rs.ValidationError]], schema: Schema) -> str:
    """What the branch of the right type found, else which types there are."""
    for errors, branch in zip(branches, schema["anyOf"], strict=True):
        if not isinstance(errors[0].kind, Kind.Type):
            return message(errors[0], branch)
    return "must be " + _either([branch["type"] for branch in schema["anyOf"]])


def _described(schema: Schema) -> str:
    description = schema.get("description", "of the form that the schema states")
    return f"must be {description[:1].lower()}{description[1:]}"


def _either(types: list[str]) -> str:
    *others, last = (_ARTICLES.get(name, f"a {name}") for name in types)
    return f"{', '.join(others)} or {last}" if others else last
