"""Examples of every type in both formats: made from its schema, with values that say something."""

from typing import Any

import jsonschema_rs
from lxml import etree

from .. import xml
from ..negotiation import Format
from ..schema import Schema
from ..schema.shapes import singular

UUID = "0197c3a2-5b1e-7c44-9d1a-3f0e8a6b2c11"

KNOWN: dict[str, tuple[Any, ...]] = {
    "BucketCreate.bucket": ("org_1_study",),
    "Check.name": ("valkey",),
    "access_token": ("eyJhbGciOiJIUzI1NiJ9…",),
    "action": ("LOGIN",),
    "actor": ("user@hg.io",),
    "aggregate": ("mean",),
    "bucket": ("org_1",),
    "contact_email": ("care@hg.io",),
    "content_type": ("image/png",),
    "count": (1,),
    "current_password": ("Secret123!x",),
    "data_base64": (
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==",
    ),
    "description": ("What it is for",),
    "email": ("user@hg.io",),
    "event_id": (UUID,),
    "exp": (1717239600,),
    "expires_in": (3600,),
    "field": ("bpm",),
    "fields": ({"bpm": 72}, ["bpm"]),
    "file_name": ("logo.png",),
    "first_name": ("Ana",),
    "iat": (1717236000,),
    "id": (1, UUID),
    "ip": ("203.0.113.7",),
    "jti": (UUID,),
    "last_name": ("García",),
    "measurement": ("heart_rate",),
    "name": ("HeartGuard",),
    "new_password": ("Another123!x",),
    "org": ("org_1",),
    "organization_name": ("Clínica del Sol",),
    "password": ("Secret123!x",),
    "occurred_at": ("2024-06-01T10:00:00Z",),
    "payload": ({"attempts": 2},),
    "policies": ("ISO27001",),
    "preferences": ({"lang": "es"},),
    "range_start": ("-1h",),
    "range_stop": ("now()",),
    "refresh_token": ("eyJhbGciOiJIUzI1NiJ9…",),
    "retention_seconds": (7776000,),
    "role": ("user",),
    "service": ("auth",),
    "sid": (UUID,),
    "status": ("ok", "ready"),
    "sub": ("1",),
    "tags": ({"user_id": "1"},),
    "time": ("2024-06-01T10:01:00Z",),
    "timestamp": ("2024-06-01T10:00:00Z",),
    "timezone": ("Europe/Madrid",),
    "token": ("eyJhbGciOiJIUzI1NiJ9…",),
    "user_agent": ("HeartGuard/1.0 (Android)",),
    "value": (72.0,),
    "version": ("0.1.0",),
    "window": ("1m",),
}
"""What properties of these names hold in examples: the first value that suits the type."""

_OTHER = {"text/plain": "heart_rate,device=h10 bpm=72,steps=5i"}
"""Bodies of further media types."""

Example = dict[str, dict[str, Any]]


class Examples:
    """Makes examples from the document's components."""

    def __init__(self, schemas: dict[str, Schema]) -> None:
        self._schemas = schemas

    def requests(self, type_: type, fmt: Format) -> Example:
        """With what has to be there, and with all that can be."""
        least, most = (self.plain(type_.__name__, complete=complete) for complete in (False, True))
        found = {"required": least or most, "complete": most}
        if found["required"] == most:
            del found["complete"]
        return {name: {"value": shown(plain, type_, fmt)} for name, plain in found.items()}

    def answers(self, type_: type, fmt: Format) -> Example:
        return {"answer": {"value": shown(self.plain(type_.__name__, complete=True), type_, fmt)}}

    def other(self, media_type: str) -> dict[str, Any]:
        """An example of a body that is neither JSON nor XML; nothing where there is none."""
        known = _OTHER.get(media_type)
        return {"examples": {"required": {"value": known}}} if known else {}

    def plain(self, type_name: str, *, complete: bool) -> dict[str, Any]:
        """A value of the type of that name, as JSON has it."""
        schema = self._schemas[type_name]
        wanted = schema["properties"] if complete else schema.get("required", [])
        return {name: self._value(type_name, name, schema["properties"][name], complete) for name in wanted}

    def _value(self, of: str, name: str, schema: Schema, complete: bool) -> Any:
        if "$ref" in schema:
            return self.plain(schema["$ref"].rpartition("/")[2], complete=complete)
        for known in (*KNOWN.get(f"{of}.{name}", ()), *KNOWN.get(name, ())):
            if self._suits(known, schema):
                return known
        match schema:
            case {"default": default}:
                return default
            case {"enum": [first, *_]}:
                return first
            case {"anyOf": [first, *_]}:
                return self._value(of, name, first, complete)
            case {"type": "array", "items": items}:
                return [self._value(of, singular(name), items, complete)]
            case {"type": "object", "additionalProperties": values}:
                return {"key": self._value(of, "", values, complete)}
        return _scalar(schema)

    def _suits(self, value: Any, schema: Schema) -> bool:
        judge = {**schema, "components": {"schemas": self._schemas}}
        return jsonschema_rs.Draft202012Validator(judge, validate_formats=True).is_valid(value)


def _scalar(schema: Schema) -> Any:
    match schema:
        case {"type": "integer"}:
            return max(1, schema.get("minimum", 1))
        case {"type": "number"}:
            return 1.5
        case {"type": "boolean"}:
            return True
        case {"format": "date-time"}:
            return "2024-06-01T10:00:00Z"
        case {"format": "uuid"}:
            return UUID
    return "text"


def shown(plain: dict[str, Any], type_: type, fmt: Format) -> Any:
    """As the document holds it: JSON as it is, XML as indented text."""
    if fmt is Format.JSON:
        return plain
    root = etree.fromstring(xml.dumps_plain(plain, type_))
    etree.indent(root)
    return etree.tostring(root, encoding="unicode")
