"""What the documentation page does with text, run by Node: its curl commands and its indenting."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from heartguard import codec
from heartguard.models.timeseries import QueryResult, Result
from heartguard.negotiation import Format
from services.gateway.src.pages import PAGE

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node")

ODD = 'it\'s "$HOME" `id` \\ $(id) {[,]} : <&> \u00e1\u2028 !'


def run(expression: str, *arguments: Any) -> Any:
    """What the expression gives; ``a`` are the arguments."""
    source = "\n".join((PAGE.parent / name).read_text() for name in ("schema.js", "request.js"))
    script = f"{source}\nconst a = {json.dumps(arguments)};\nprocess.stdout.write(JSON.stringify({expression}));"
    script = script.replace("location.origin", '"http://gateway"')
    done = subprocess.run([NODE or "", "-"], input=script, capture_output=True, text=True, timeout=30, check=True)
    return json.loads(done.stdout)


def arguments_of(command: str, folder: Path) -> list[str]:
    """The arguments that a shell gives to ``curl``."""
    file = folder / "command.sh"
    file.write_text('curl() { printf "%s\\0" "$@"; }\nTOKEN=the-token\n' + command)
    done = subprocess.run(["bash", file], capture_output=True, timeout=30, check=True)
    return done.stdout.decode().split("\0")[:-1]


def test_the_curl_command_is_the_request(tmp_path: Path) -> None:
    parts = (
        "{path: new Map([['id', a[0]]]), query: new Map([['q', a[0]], ['empty', '']]), header: new Map(),"
        " accept: 'application/xml', contentType: 'text/plain', body: a[0]}"
    )
    command = run(f"curl(compose('put', '/users/{{id}}', {parts}), true)", ODD)
    url = run("encodeURIComponent(a[0])", ODD)
    query = run("new URLSearchParams([['q', a[0]]]).toString()", ODD)
    assert arguments_of(command, tmp_path) == [
        "-s", "-i", "-X", "PUT", f"http://gateway/users/{url}?{query}",
        "-H", "Authorization: Bearer the-token",
        "-H", "Accept: application/xml",
        "-H", "Content-Type: text/plain",
        "--data-raw", ODD,
    ]  # fmt: skip


def test_a_request_without_body_or_token(tmp_path: Path) -> None:
    parts = "{path: new Map(), query: new Map(), header: new Map([['If-None-Match', '']]), accept: '*/*'}"
    command = run(f"curl(compose('get', '/auth/roles', {parts}), false)")
    assert arguments_of(command, tmp_path) == ["-s", "-i", "http://gateway/auth/roles", "-H", "Accept: */*"]


def results() -> QueryResult:
    values = [72.5, True, ODD, 12345678901234567890]
    found = [Result(time=ODD, field="", value=value, tags={ODD: ODD, "a": ""}) for value in values]
    return QueryResult(results=found, count=0)


def test_indenting_changes_no_value() -> None:
    as_json, as_xml = (codec.encode(results(), fmt).decode() for fmt in (Format.JSON, Format.XML))
    shown = run("readable(a[0], 'application/json')", as_json)
    assert json.loads(shown) == json.loads(as_json)
    assert "12345678901234567890" in shown, "not as a double"
    indented = run("readable(a[0], 'application/xml')", as_xml)
    assert indented.count("\n") > 20
    assert flat(indented) == flat(as_xml)


def flat(document: str) -> list[tuple[str, dict[str, str], str | None]]:
    """Every element with what it holds; white space between elements is nothing."""
    root = etree.fromstring(document.encode())
    return [(e.tag, dict(e.attrib), None if len(e) else e.text or "") for e in root.iter()]


def test_long_answers_are_cut() -> None:
    shown = run("readable(a[0], 'text/plain')", "x" * 300_000)
    assert len(shown) < 201_000
    assert "300000 characters" in shown


def test_empty_containers_stay_on_their_line() -> None:
    assert run("readable(a[0], 'application/json')", '{"a":[],"b":{ },"c":[1]}') == (
        '{\n  "a": [],\n  "b": {},\n  "c": [\n    1\n  ]\n}'
    )


@pytest.mark.parametrize(
    ("schema", "type_", "limits"),
    [
        ({"type": "string", "minLength": 1, "maxLength": 256}, "string", "1 to 256 characters"),
        ({"type": "string", "format": "uuid"}, "string (uuid)", ""),
        ({"type": "number", "minimum": -1.7976931348623157e308, "maximum": 5}, "number", "at most 5"),
        ({"type": "integer", "minimum": 0, "default": 0}, "integer", "at least 0, default 0"),
        ({"type": "object", "additionalProperties": {"type": "string"}, "default": {}}, "map of string", ""),
        ({"type": "array", "items": {"$ref": "#/components/schemas/Point"}}, "list of Point", ""),
        ({"enum": ["a", 1]}, '"a" | 1', ""),
        ({"anyOf": [{"type": "number"}, {"type": "string"}]}, "number or string", ""),
        ({}, "anything", ""),
    ],
)
def test_a_schema_in_words(schema: dict[str, Any], type_: str, limits: str) -> None:
    assert run("[typeOf(a[0]), limitsOf(a[0])]", schema) == [type_, limits]
