"""What ``schemas/`` says: not stale, and true of the contract's own examples and errors, in both formats."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from lxml import etree

from heartguard import codec
from heartguard.errors import MESSAGES, Invalid, ServiceError, influx_code
from heartguard.models import auth_token, media_item, timeseries
from heartguard.models.common import Detail
from heartguard.negotiation import Format
from heartguard.publish import FOLDER, publish, published, routes
from heartguard.services import SERVICES, Service
from heartguard.settings import ROOT

JSON, XML = Format.JSON, Format.XML


def json_judge(domain: str, name: str) -> jsonschema_rs.Draft202012Validator:
    schema = json.loads((FOLDER / f"{domain}.schema.json").read_bytes())
    return jsonschema_rs.Draft202012Validator({**schema, "$ref": f"#/$defs/{name}"}, validate_formats=True)


def xsd_judge(domain: str) -> etree.XMLSchema:
    return etree.XMLSchema(etree.parse(FOLDER / f"{domain}.xsd"))


# Staleness


def test_the_schemas_are_not_stale() -> None:
    assert publish(check=True) == 0, "run `heartguard publish` and commit schemas/"


def test_stale_and_surplus_files_are_named_and_then_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "schemas"
    assert publish(check=False, root=tmp_path) == 0
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert written == published().keys()
    (folder / "common.xsd").write_text("old")
    (folder / "gone.xsd").write_text("old")
    (folder / "routes.json").unlink()
    (tmp_path / "docs" / "policy.md").write_text("old")
    assert publish(check=True, root=tmp_path) == 1
    told = capsys.readouterr().out
    assert all(name in told for name in ("common.xsd", "gone.xsd", "routes.json", "docs/policy.md"))
    assert "timeseries" not in told
    assert publish(check=False, root=tmp_path) == 0
    assert publish(check=True, root=tmp_path) == 0


def test_the_module_can_be_run() -> None:
    command = [sys.executable, "-m", "heartguard.publish", "--check"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_service_that_is_not_installed_has_no_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Service("absent", "ABSENT", "absent", 1, "ABSENT_PORT", "ABSENT_URL", "/absent")
    monkeypatch.setitem(SERVICES, "absent", absent)
    assert all(route["service"] != "absent" for route in routes())


def test_routes_say_what_the_gateway_must_know() -> None:
    login = next(route for route in routes() if route["path"] == "/auth/login")
    assert login == {
        "service": "auth",
        "name": login["name"],
        "method": "POST",
        "path": "/auth/login",
        "audience": "P",
        "optional_caller": False,
        "token_scheme": False,
        "influx_errors": False,
        "max_body": login["max_body"],
        "upload": False,
        "audit": login["audit"],
        "request": "LoginRequest",
        "answer": "LoginResponse",
        "media_types": ["application/json", "application/xml"],
    }
    write = next(route for route in routes() if route["path"] == "/timeseries/write")
    assert "text/plain" in write["media_types"]
    upload = next(route for route in routes() if route["path"] == "/media/upload")
    assert (upload["upload"], upload["request"]) == (True, "MediaUpload")
    assert "multipart/form-data" in upload["media_types"]


# The examples of section 10


def test_registering() -> None:
    as_json = b'{"email":"user@hg.io","password":"Secret123!x"}'
    as_xml = b"<RegisterRequest><email>user@hg.io</email><password>Secret123!x</password></RegisterRequest>"
    accepted("auth_token", auth_token.RegisterRequest, as_json, as_xml)
    answered(
        "auth_token",
        auth_token.RegisterResponse(user_id=2, email="user@hg.io", role="user", org_id=1),
        b'{"user_id":2,"email":"user@hg.io","role":"user","org_id":1}',
        b"<RegisterResponse><user_id>2</user_id><email>user@hg.io</email><role>user</role><org_id>1</org_id>"
        b"</RegisterResponse>",
    )


def test_uploading() -> None:
    as_json = b'{"file_name":"logo.png","content_type":"image/png","data_base64":"iVBORw0KGgo="}'
    as_xml = (
        b"<MediaUpload><file_name>logo.png</file_name><content_type>image/png</content_type>"
        b"<data_base64>iVBORw0KGgo=</data_base64></MediaUpload>"
    )
    accepted("media_item", media_item.MediaUpload, as_json, as_xml)


def test_writing() -> None:
    as_json = (
        b'{"bucket":"org_1","points":[{"measurement":"heart_rate","tags":{"user_id":"1"},"fields":{"bpm":72},'
        b'"timestamp":"2024-06-01T10:00:00Z"}]}'
    )
    as_xml = (
        b"<WriteRequest><bucket>org_1</bucket><points><point><measurement>heart_rate</measurement>"
        b"<tags><user_id>1</user_id></tags><fields><bpm>72</bpm></fields>"
        b"<timestamp>2024-06-01T10:00:00Z</timestamp></point></points></WriteRequest>"
    )
    accepted("timeseries", timeseries.WriteRequest, as_json, as_xml)
    answered(
        "timeseries",
        timeseries.WriteResult(success=True, inserted=1),
        b'{"success":true,"inserted":1}',
        b"<WriteResult><success>true</success><inserted>1</inserted></WriteResult>",
    )


def accepted(domain: str, type_: type[msgspec.Struct], as_json: bytes, as_xml: bytes) -> None:
    """Both bodies are good by everyone's judgement, and mean the same."""
    json_judge(domain, type_.__name__).validate(json.loads(as_json))
    xsd_judge(domain).assertValid(etree.fromstring(as_xml))
    assert codec.decode(as_json, JSON, type_) == codec.decode(as_xml, XML, type_)


def answered(domain: str, answer: msgspec.Struct, as_json: bytes, as_xml: bytes) -> None:
    assert codec.encode(answer, JSON) == as_json
    assert codec.encode(answer, XML).partition(b"\n")[2] == as_xml
    json_judge(domain, type(answer).__name__).validate(json.loads(as_json))
    xsd_judge(domain).assertValid(etree.fromstring(as_xml))


# Errors

ERRORS = [
    *(ServiceError(status) for status in MESSAGES),
    ServiceError(409, "The bucket exists", code="TS_001"),
    Invalid([Detail(path="/points/3/timestamp", message="must be a time"), Detail(path="", message="<&>\x00")]),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{error.code or error.status}")
def test_errors_have_the_published_shape_in_both_formats(error: ServiceError) -> None:
    body = error.body("TS", "0f7c")
    as_json = json.loads(codec.encode_error(body, JSON))
    json_judge("common", "ErrorResponse").validate(as_json)
    as_influx_has_it = json.loads(codec.encode_error(body, JSON, influx_code(error.status)))
    json_judge("common", "InfluxErrorResponse").validate(as_influx_has_it)
    assert as_influx_has_it == {"code": influx_code(error.status), "message": body.message, **as_json}
    assert codec.encode_error(body, XML, influx_code(error.status)) == codec.encode_error(body, XML)
    root = etree.fromstring(codec.encode_error(body, XML))
    xsd_judge("common").assertValid(root)
    assert root.tag == "Error"
    assert root.findtext("code") == as_json["error"]["code"]
    assert len(root.findall("details/detail")) == len(as_json["error"].get("details", []))


# Limits at their edges, where generated values seldom come


def batch(points: int, fields: int, tags: int) -> dict[str, Any]:
    point = {
        "measurement": "m",
        "fields": {f"f{n}": 1.5 for n in range(fields)},
        "tags": {f"t{n}": "v" for n in range(tags)},
    }
    return {"points": [point] * points}


@pytest.mark.parametrize(
    ("shape", "good"),
    [
        ((10_000, 1, 0), True),
        ((10_001, 1, 0), False),
        ((0, 1, 0), False),
        ((1, 256, 64), True),
        ((1, 257, 0), False),
        ((1, 0, 0), False),
        ((1, 1, 65), False),
    ],
)
def test_limits(shape: tuple[int, int, int], good: bool) -> None:
    plain = batch(*shape)
    root = etree.Element("WriteRequest")
    points = etree.SubElement(root, "points")
    for point in plain["points"]:
        element = etree.SubElement(points, "point")
        etree.SubElement(element, "measurement").text = "m"
        for group in ("fields", "tags"):
            entries = etree.SubElement(element, group)
            for key, value in point[group].items():
                etree.SubElement(entries, key).text = str(value)
    as_json, as_xml = json.dumps(plain).encode(), etree.tostring(root)
    assert json_judge("timeseries", "WriteRequest").is_valid(plain) is good
    assert xsd_judge("timeseries").validate(root) is good
    assert is_good(as_json, JSON) is good
    assert is_good(as_xml, XML) is good


def is_good(body: bytes, fmt: Format) -> bool:
    try:
        codec.decode(body, fmt, timeseries.WriteRequest)
    except Invalid:
        return False
    return True
