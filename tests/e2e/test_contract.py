"""The contract as a client sees it: the examples of its section 10, every kind of error, both formats both ways.

Everything goes through the gateway of a whole stack. Answers are judged by the published schemas.
"""

import gzip
import hashlib
import os
import signal
import socket
import threading
import time
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Callable
from http.client import HTTPResponse
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import urllib3
from lxml import etree
from typer.testing import CliRunner

from heartguard.cli.main import app
from heartguard.local.server import wait_until
from heartguard.local.stack import Stack
from heartguard.settings import ROOT

JSON, XML = "application/json", "application/xml"
FORMATS = [(sent, asked) for sent in (JSON, XML) for asked in (JSON, XML)]


class Portal:
    """A client of the gateway."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._pool = urllib3.PoolManager(maxsize=32, timeout=15, retries=False)
        self.token = ""

    def ask(
        self, method: str, path: str, body: bytes | None = None, sent: str = JSON, asked: str = JSON, **headers: str
    ) -> urllib3.BaseHTTPResponse:
        known = {"Accept": asked, **({"Content-Type": sent} if body is not None else {})}
        if self.token:
            known["Authorization"] = f"Bearer {self.token}"
        known |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self._pool.request(method, self.stack.gateway + path, body=body, headers=known)

    def sign_in(self) -> "Portal":
        email, password = (os.environ[f"BOOTSTRAP_ADMIN_{name}"] for name in ("EMAIL", "PASSWORD"))
        body = msgspec.json.encode({"email": email, "password": password})
        self.token = self.ask("POST", "/auth/login", body).json()["access_token"]
        return self


@pytest.fixture(scope="module")
def stack(stack_settings: dict[str, str]) -> Stack:
    result = CliRunner().invoke(app, ["up"], prog_name="heartguard")
    assert result.exit_code == 0, result.output
    return Stack()


@pytest.fixture
def anonymous(stack: Stack) -> Portal:
    return Portal(stack)


@pytest.fixture
def admin(stack: Stack) -> Portal:
    return Portal(stack).sign_in()


def judge(answer: urllib3.BaseHTTPResponse, asked: str, domain: str, root: str) -> dict[str, Any] | Any:
    """The answer, after the published schema of its format has found nothing wrong with it."""
    assert answer.headers["Content-Type"] == asked
    assert "Accept" in answer.headers["Vary"]
    if asked == XML:
        document = etree.fromstring(answer.data)
        etree.XMLSchema(etree.parse(ROOT / "schemas" / f"{domain}.xsd")).assertValid(document)
        assert document.tag == root
        return document
    value = answer.json()
    schema = msgspec.json.decode((ROOT / "schemas" / f"{domain}.schema.json").read_bytes())
    name = "ErrorResponse" if root == "Error" else root
    jsonschema_rs.validate({**schema, "$ref": f"#/$defs/{name}"}, value)
    return value


def pick(value: Any, name: str) -> Any:
    return value.findtext(name) if isinstance(value, etree._Element) else value[name]


@pytest.mark.parametrize(("sent", "asked"), FORMATS)
def test_register_and_sign_in(anonymous: Portal, sent: str, asked: str) -> None:
    email = f"user-{FORMATS.index((sent, asked))}@hg.io"
    bodies = {
        JSON: (f'{{"email":"{email}","password":"Secret123!x"}}', "{}"),
        XML: (f"<RegisterRequest><email>{email}</email><password>Secret123!x</password></RegisterRequest>", ""),
    }
    made = anonymous.ask("POST", "/auth/register", bodies[sent][0].encode(), sent, asked)
    assert made.status == 201
    registered = judge(made, asked, "auth_token", "RegisterResponse")
    assert (pick(registered, "email"), pick(registered, "role"), str(pick(registered, "org_id"))) == (
        email,
        "user",
        "1",
    )

    login = bodies[sent][0].replace("RegisterRequest", "LoginRequest").encode()
    signed_in = judge(anonymous.ask("POST", "/auth/login", login, sent, asked), asked, "auth_token", "LoginResponse")
    anonymous.token = pick(signed_in, "access_token")

    profile = judge(anonymous.ask("GET", "/auth/profile", asked=asked), asked, "auth_token", "Profile")
    assert pick(profile, "email") == email
    assert judge(anonymous.ask("GET", "/auth/roles", asked=asked), asked, "auth_token", "Roles") is not None

    refresh = pick(signed_in, "refresh_token")
    body = f'{{"refresh_token":"{refresh}"}}'
    if sent == XML:
        body = f"<RefreshRequest><refresh_token>{refresh}</refresh_token></RefreshRequest>"
    renewed = judge(
        anonymous.ask("POST", "/auth/refresh", body.encode(), sent, asked), asked, "auth_token", "RefreshResponse"
    )
    anonymous.token = pick(renewed, "access_token")

    out = anonymous.ask("POST", "/auth/logout", asked=asked)
    assert (out.status, out.data) == (204, b"")
    assert anonymous.ask("GET", "/auth/profile", asked=asked).status == 401


@pytest.mark.parametrize(("sent", "asked"), FORMATS)
def test_write_and_query(admin: Portal, sent: str, asked: str) -> None:
    second = FORMATS.index((sent, asked))
    point = {
        "measurement": "heart_rate",
        "tags": {"user_id": "1", "via": f"{second}"},
        "fields": {"bpm": 72},
        "timestamp": "2024-06-01T10:00:00Z",
    }
    writes = {
        JSON: msgspec.json.encode({"bucket": "org_1", "points": [point]}),
        XML: (
            "<WriteRequest><bucket>org_1</bucket><points><point><measurement>heart_rate</measurement>"
            f"<tags><user_id>1</user_id><via>{second}</via></tags><fields><bpm>72</bpm></fields>"
            "<timestamp>2024-06-01T10:00:00Z</timestamp></point></points></WriteRequest>"
        ).encode(),
    }
    written = judge(
        admin.ask("POST", "/timeseries/write", writes[sent], sent, asked), asked, "timeseries", "WriteResult"
    )
    assert (str(pick(written, "success")).lower(), str(pick(written, "inserted"))) == ("true", "1")

    queries = {
        JSON: msgspec.json.encode(
            {
                "measurement": "heart_rate",
                "range_start": "2024-06-01T09:00:00Z",
                "range_stop": "2024-06-01T11:00:00Z",
                "tags": {"via": f"{second}"},
                "aggregate": "mean",
            }
        ),
        XML: (
            "<QueryRequest><measurement>heart_rate</measurement><range_start>2024-06-01T09:00:00Z</range_start>"
            f"<range_stop>2024-06-01T11:00:00Z</range_stop><tags><via>{second}</via></tags>"
            "<aggregate>mean</aggregate></QueryRequest>"
        ).encode(),
    }
    found = judge(
        admin.ask("POST", "/timeseries/query", queries[sent], sent, asked), asked, "timeseries", "QueryResult"
    )
    if asked == XML:
        assert found.findtext("results/result/time") == "2024-06-01T10:01:00Z"
        assert found.findtext("results/result/value") == "72.0"
    else:
        [result] = found["results"]
        assert (result["time"], result["value"]) == ("2024-06-01T10:01:00Z", 72.0)
    assert str(pick(found, "count")) == "1"


@pytest.mark.parametrize(("sent", "asked"), FORMATS)
def test_buckets(admin: Portal, sent: str, asked: str) -> None:
    name = f"org_1_b{FORMATS.index((sent, asked))}"
    creates = {
        JSON: f'{{"bucket":"{name}","retention_seconds":3600}}'.encode(),
        XML: (
            f"<BucketCreate><bucket>{name}</bucket><retention_seconds>3600</retention_seconds></BucketCreate>"
        ).encode(),
    }
    made = admin.ask("POST", "/timeseries/buckets", creates[sent], sent, asked)
    assert made.status == 201
    assert pick(judge(made, asked, "timeseries", "Bucket"), "bucket") == name
    assert admin.ask("POST", "/timeseries/buckets", creates[sent], sent, asked).status == 409
    listed = judge(admin.ask("GET", "/timeseries/buckets", asked=asked), asked, "timeseries", "Buckets")
    names = listed.xpath("buckets/bucket/bucket/text()") if asked == XML else [b["bucket"] for b in listed["buckets"]]
    assert {"org_1", name} <= set(names)
    assert admin.ask("DELETE", f"/timeseries/buckets/{name}", asked=asked).status == 204
    assert admin.ask("DELETE", f"/timeseries/buckets/{name}", asked=asked).status == 404


LOGO = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==")


@pytest.mark.parametrize(("sent", "asked"), FORMATS)
def test_files(admin: Portal, anonymous: Portal, sent: str, asked: str) -> None:
    said = {"file_name": "logo.png", "content_type": "image/png", "data_base64": b64encode(LOGO).decode()}
    as_xml = "".join(f"<{name}>{value}</{name}>" for name, value in said.items())
    body = msgspec.json.encode(said) if sent == JSON else f"<MediaUpload>{as_xml}</MediaUpload>".encode()
    made = admin.ask("POST", "/media/upload", body, sent, asked)
    assert made.status == 201, made.data
    item = judge(made, asked, "media_item", "MediaItem")
    id_ = pick(item, "id")
    assert (pick(item, "file_name"), pick(item, "sha256")) == ("logo.png", hashlib.sha256(LOGO).hexdigest())

    listed = judge(admin.ask("GET", "/media/items?limit=1", asked=asked), asked, "media_item", "MediaItems")
    [first] = listed.findall("items/item") if asked == XML else listed["items"]
    assert pick(first, "id") == id_
    judge(admin.ask("GET", f"/media/items/{id_}", asked=asked), asked, "media_item", "MediaItem")

    answer = admin.ask("GET", f"/media/items/{id_}/download", asked=asked)
    link = judge(answer, asked, "media_item", "SignedUrl")
    path = pick(link, "url").removeprefix(admin.stack.gateway)
    assert path.startswith("/media/objects/org_1/")
    found = anonymous.ask("GET", path, asked="image/png")
    assert (found.status, found.data, found.headers["Content-Type"]) == (200, LOGO, "image/png")
    part = anonymous.ask("GET", path, Range="bytes=1-3")
    assert (part.status, part.data, part.headers["Content-Range"]) == (206, b"PNG", f"bytes 1-3/{len(LOGO)}")
    head = anonymous.ask("HEAD", path)
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(LOGO)))
    forged = anonymous.ask("GET", path.replace("logo.png?", "logo2.png?"), asked=asked)
    assert pick(judge_error(forged, asked), "code") == "MEDIA_403"

    assert admin.ask("DELETE", f"/media/items/{id_}", asked=asked).status == 204
    assert anonymous.ask("GET", path, asked=asked).status == 404


@pytest.mark.parametrize("megabytes", [10, 11, 30])
def test_files_that_are_too_large(admin: Portal, megabytes: int) -> None:
    """Whether the gateway refuses them already or only the service can."""
    content = LOGO + bytes(megabytes * 1024 * 1024)
    said = {"file_name": "a.png", "content_type": "image/png", "data_base64": b64encode(content).decode()}
    refused = admin.ask("POST", "/media/upload", msgspec.json.encode(said))
    assert (refused.status, pick(judge_error(refused, JSON), "code")) == (413, "MEDIA_413")


def test_a_form_of_a_file(admin: Portal) -> None:
    body, content_type = urllib3.encode_multipart_formdata({"file": ("logo.png", LOGO, "image/png")})
    made = judge(admin.ask("POST", "/media/upload", body, content_type), JSON, "media_item", "MediaItem")
    assert (made["file_name"], made["size"]) == ("logo.png", len(LOGO))


def judge_error(answer: urllib3.BaseHTTPResponse, asked: str) -> Any:
    error = judge(answer, asked, "common", "Error")
    return error if asked == XML else error["error"]


@pytest.mark.parametrize("asked", [JSON, XML])
def test_line_protocol_plain_and_gzipped(admin: Portal, asked: str) -> None:
    lines = b"heart_rate,user_id=1,via=lines bpm=71,steps=5i 1717236000\n"
    plain = admin.ask("POST", "/timeseries/write?precision=s", lines, "text/plain", asked)
    assert pick(judge(plain, asked, "timeseries", "WriteResult"), "inserted") in {1, "1"}
    packed = gzip.compress(lines * 3)
    answer = admin.ask("POST", "/timeseries/write?precision=s", packed, "text/plain", asked, Content_Encoding="gzip")
    assert pick(judge(answer, asked, "timeseries", "WriteResult"), "inserted") in {3, "3"}


@pytest.mark.parametrize("asked", [JSON, XML])
@pytest.mark.parametrize("signed_in", [False, True])
@pytest.mark.parametrize(
    ("method", "path", "body", "sent", "status"),
    [
        ("POST", "/auth/login", b"{", JSON, 400),
        ("POST", "/auth/login", b"<!DOCTYPE a [<!ENTITY b 'c'>]><LoginRequest/>", XML, 400),
        ("POST", "/auth/login", b'{"email":"boss@hg.io","password":"wrong"}', JSON, 401),
        ("GET", "/auth/profile", None, JSON, 401),
        ("GET", "/gateway/nowhere", None, JSON, 404),
        ("GET", "/timeseries/nowhere", None, JSON, 404),
        ("GET", "/nowhere", None, JSON, 404),
        ("DELETE", "/auth/login", None, JSON, 405),
        ("PUT", "/gateway/health", b"{}", JSON, 405),
        ("POST", "/auth/register", b'{"email":"boss@hg.io","password":"Secret123!x"}', JSON, 409),
        ("POST", "/auth/register", b'{"email":"new@hg.io","password":"x","role":"admin"}', JSON, 403),
        ("POST", "/auth/login", b" " * 100_000, JSON, 413),
        ("POST", "/auth/login", b"a,b", "text/csv", 415),
        ("POST", "/auth/login", b"{}", "application/json; charset=utf-16", 415),
        ("POST", "/auth/login", b'{"email":5}', JSON, 422),
        ("POST", "/auth/login", b"<Login/>", XML, 422),
    ],
)
def test_errors_are_the_contracts(
    stack: Stack, method: str, path: str, body: bytes | None, sent: str, status: int, asked: str, signed_in: bool
) -> None:
    portal = Portal(stack)
    if signed_in:
        portal.token = "a.token.that-is-none"
    if signed_in and path == "/auth/register":
        status = 401  # who shows a token there must show a good one
    answer = portal.ask(method, path, body, sent, asked, X_Request_ID="find-me")
    assert answer.status == status
    error = judge(answer, asked, "common", "Error")
    error = error if asked == XML else error["error"]
    assert pick(error, "code").split("_")[0] in {"GATEWAY", "AUTH", "TS"}
    assert pick(error, "request_id") == answer.headers["X-Request-ID"] == "find-me"
    if status == 401:
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    if status == 405:
        assert answer.headers["Allow"]


DOCUMENT = msgspec.json.decode((ROOT / "schemas" / "openapi.json").read_bytes())
OPERATIONS = [(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods]


@pytest.mark.parametrize("signed_in", [True, False])
@pytest.mark.parametrize("sent", [JSON, XML])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_the_openapi_document_tells_what_comes_back(
    stack: Stack, method: str, path: str, sent: str, signed_in: bool
) -> None:
    """Its own examples, sent to each operation: a status that it names, and a body as it says."""
    operation = DOCUMENT["paths"][path][method]
    portal = Portal(stack).sign_in() if signed_in else Portal(stack)
    body = operation.get("requestBody")
    if body:
        example = body["content"][sent]["examples"]["required"]["value"]
        body = example.encode() if sent == XML else msgspec.json.encode(example)
    known = defaultdict(lambda: "org_1_none", id="0197c3a2-5b1e-7c44-9d1a-3f0e8a6b2c11")
    answer = portal.ask(method.upper(), path.format_map(known), body, sent)
    judge_by_the_document(operation, answer)
    if not signed_in and operation["x-audience"] != "P":
        assert answer.status == 401


def judge_by_the_document(operation: dict[str, Any], answer: urllib3.BaseHTTPResponse) -> None:
    """A status that the operation names, and a body as it says."""
    response = operation["responses"][str(answer.status)]
    if "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
    media_type = answer.headers.get("Content-Type", "").partition(";")[0]
    content = response.get("content", {})
    assert bool(answer.data) == bool(content)
    assert not content or {media_type, "*/*"} & content.keys()
    if schema := content.get(media_type, {}).get("schema"):
        jsonschema_rs.validate({**schema, "components": DOCUMENT["components"]}, answer.json())


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "a.hg.io,b.hg.io"},
        {"Content-Length": "99999999", "Content-Type": JSON},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Encoding": "br", "Content-Type": JSON},
        {"If-Match": '"another"'},
        {"If-None-Match": '"é"'},
        {"Range": "bytes=9-1", "If-Range": "x"},
        {f"X-{number}": "a" for number in range(120)},
        {"Accept": "text/csv"},
    ],
    ids=lambda headers: next(iter(headers)),
)
@pytest.mark.parametrize("longer", ["", "?limit=x", "?" + "a" * 70_000], ids=["as-it-is", "query", "long"])
def test_the_openapi_document_tells_what_odd_requests_get(admin: Portal, headers: dict[str, str], longer: str) -> None:
    """What is wrong with them has nothing to do with the operation, and yet each says what comes of it."""
    for method, path in OPERATIONS:
        target = path.format_map(defaultdict(lambda: "none", id="99")) + longer
        answer = admin.ask(method.upper(), target, Connection="close", **headers)
        try:
            judge_by_the_document(DOCUMENT["paths"][path][method], answer)
        except Exception as problem:
            raise AssertionError(f"{method} {path}: {answer.status}, {answer.data[:300]!r}") from problem
        if path == "/auth/logout":
            admin.sign_in()


@pytest.mark.parametrize("coding", ["chunked", "gzip, chunked"])
def test_the_openapi_document_tells_what_a_body_in_chunks_gets(admin: Portal, coding: str) -> None:
    """Sent at once: a body that is still on its way when the connection is closed can take the answer with it."""
    gateway = urllib3.util.parse_url(admin.stack.gateway)
    for method, path in OPERATIONS:
        target = path.format_map(defaultdict(lambda: "none", id="99"))
        head = f"{method.upper()} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: {coding}\r\n"
        with socket.create_connection((str(gateway.host), gateway.port or 80), timeout=15) as connection:
            connection.sendall(f"{head}Authorization: Bearer {admin.token}\r\n\r\n0\r\n\r\n".encode())
            answer = HTTPResponse(connection)
            answer.begin()
        assert str(answer.status) in DOCUMENT["paths"][path][method]["responses"], f"{method} {path}: {answer.status}"
        if path == "/auth/logout":
            admin.sign_in()


@pytest.mark.parametrize("asked", [JSON, XML])
def test_a_user_may_not_make_buckets(stack: Stack, asked: str) -> None:
    portal = Portal(stack)
    email = f"plain-{asked[-3:].strip('/')}@hg.io"
    body = f'{{"email":"{email}","password":"Secret123!x"}}'.encode()
    assert portal.ask("POST", "/auth/register", body).status == 201
    portal.token = portal.ask("POST", "/auth/login", body).json()["access_token"]
    answer = portal.ask("POST", "/timeseries/buckets", b'{"bucket":"org_1_mine"}', asked=asked)
    assert answer.status == 403
    judge(answer, asked, "common", "Error")
    foreign = b'{"points":[{"measurement":"m","tags":{"user_id":"1"},"fields":{"a":1}}]}'
    assert portal.ask("POST", "/timeseries/write", foreign, asked=asked).status == 403


def test_nothing_acceptable(anonymous: Portal) -> None:
    answer = anonymous.ask("POST", "/auth/login", b'{"email":"boss@hg.io","password":"x"}', asked="text/csv")
    assert answer.status == 406
    judge(answer, JSON, "common", "Error")


def test_the_demo_reads_back_what_it_sent(stack: Stack) -> None:
    result = CliRunner().invoke(app, ["demo", "--gateway", stack.gateway], prog_name="heartguard")
    assert result.exit_code == 0, result.output
    assert "JSON and XML say the same." in result.output
    assert "<result>" in result.output


def test_the_demo_says_when_nobody_answers(free_port: Callable[[], int]) -> None:
    result = CliRunner().invoke(app, ["demo", "--gateway", f"http://127.0.0.1:{free_port()}"], prog_name="heartguard")
    assert result.exit_code == 1
    assert "is the stack running?" in result.output


@pytest.mark.parametrize("name", ["timeseries", "auth"])
def test_a_service_killed_under_load_is_back_and_the_gateway_tells_the_truth(admin: Portal, name: str) -> None:
    """While requests run, ``kill -9``: the gateway answers 502 or 503 in the contract's shape, then all is well."""
    stack, calls = admin.stack, {"timeseries": ("POST", "/timeseries/query"), "auth": ("GET", "/auth/roles")}
    method, path = calls[name]
    body = b'{"measurement":"heart_rate"}' if method == "POST" else None
    answers: list[tuple[int, str, float]] = []
    wrong: list[object] = []
    done = threading.Event()

    def load(asked: str) -> None:
        portal = Portal(stack)
        portal.token = admin.token
        while not done.is_set():
            begun = time.monotonic()
            answer = portal.ask(method, path, body, asked=asked)
            answers.append((answer.status, asked, time.monotonic() - begun))
            try:
                if answer.status >= 400:
                    judge(answer, asked, "common", "Error")
            except Exception as error:  # noqa: BLE001 - to be reported by the test itself
                wrong.append((answer.status, answer.data[:200], error))

    threads = [threading.Thread(target=load, args=(asked,)) for asked in (JSON, XML) * 2]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(answers) > 50, "The load did not begin", 20)
        killed = stack.supervisor.states()[name].pid
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: stack.supervisor.states()[name].pid not in {0, killed}, f"{name} was not restarted", 10)
        wait_until(lambda: all(row.well for row in stack.status()), "Not everything was ready again", 20)
        wait_until(lambda: answers[-1][0] == 200, "The gateway did not find the service again", 10)
    finally:
        done.set()
        for thread in threads:
            thread.join(30)
    assert not wrong
    assert {status for status, _, _ in answers} <= {200, 502, 503}
    assert {status for status, _, _ in answers} & {502, 503}, "nobody noticed"
