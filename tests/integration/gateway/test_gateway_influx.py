"""Where InfluxDB's clients write, failures have their ``code`` and ``message`` at the top, whoever answers."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from heartguard.schema import document
from heartguard.settings import ROOT

Fixture = Any
PATH = "/timeseries/api/v2/write"
CODES = {
    400: "invalid",
    401: "unauthorized",
    405: "method not allowed",
    413: "request too large",
    429: "too many requests",
    502: "unavailable",
    503: "unavailable",
    504: "unavailable",
}
LINES = b"m f=1"


def expect(answer: Any, status: int, prefix: str = "GATEWAY") -> None:
    assert (answer.status_code, answer.mimetype) == (status, "application/json"), answer.data
    said = answer.json
    assert list(said) == ["code", "message", "error"]
    assert said["code"] == CODES[status]
    assert said["error"]["code"] == f"{prefix}_{status}"
    assert said["message"] == said["error"]["message"] != ""


def test_what_a_client_did_wrong(gateway: Fixture, service: Fixture, kit: Fixture) -> None:
    expect(gateway("POST", PATH, data=LINES), 401)
    expect(gateway("POST", PATH, "no token", data=LINES), 401)
    expect(gateway("POST", PATH, kit.issue(), data=LINES, headers=[("Host", "a"), ("Host", "b")]), 400)
    expect(gateway("POST", PATH, kit.issue(), data=b"x" * 1025), 413)
    expect(gateway("GET", PATH, kit.issue()), 405)
    assert service.seen == []


def test_too_many_requests(make: Fixture, service: Fixture, kit: Fixture) -> None:
    gateway, token = make(TIMESERIES_URL=service.url, RATE_LIMIT="1/hour"), kit.issue()
    assert gateway("POST", PATH, token, data=LINES).status_code == 200
    answer = gateway("POST", PATH, token, data=LINES)
    expect(answer, 429)
    assert int(answer.headers["Retry-After"]) > 0


def test_a_service_that_is_away_and_then_left_alone(make: Fixture, kit: Fixture, free_port: Callable[[], int]) -> None:
    gateway = make(TIMESERIES_URL=f"http://127.0.0.1:{free_port()}")
    statuses = set()
    for _ in range(20):
        answer = gateway("POST", PATH, kit.issue(), data=LINES)
        statuses.add(answer.status_code)
        expect(answer, answer.status_code)
    assert statuses == {502, 503}


def test_a_service_that_is_slow(make: Fixture, kit: Fixture) -> None:
    with kit.raw_server(lambda connection: [None for _ in iter(lambda: connection.recv(65_536), b"")]) as url:
        answer = make(TIMESERIES_URL=url, UPSTREAM_TIMEOUT_SECONDS="1")("POST", PATH, kit.issue(), data=LINES)
    expect(answer, 504)


def test_in_xml_and_elsewhere_nothing_stands_beside_the_error(gateway: Fixture, kit: Fixture) -> None:
    answer = gateway("POST", PATH, data=LINES, headers={"Accept": "application/xml"})
    assert kit.error_of(answer)["code"] == "GATEWAY_401"
    assert kit.error_of(gateway("POST", "/timeseries/write", data=LINES))["code"] == "GATEWAY_401"


@pytest.mark.parametrize("details", [1, 5_000])
def test_what_the_service_says_passes_however_long_it_is(
    gateway: Fixture, service: Fixture, kit: Fixture, details: int
) -> None:
    named = [{"path": f"/lines/{n}", "message": 'the field "f" is \\ wrong'} for n in range(details)]
    message = 'é "quoted" \\ and so on'
    error = {"code": "TS_422", "message": message, "request_id": "r", "details": named}
    body = json.dumps({"code": "unprocessable entity", "message": message, "error": error}, separators=(",", ":"))
    service.reply = lambda *_: ("422 No", [("Content-Type", "application/json")], [body.encode()])
    answer = gateway("POST", PATH, kit.issue(), data=LINES)
    assert (answer.status_code, answer.data) == (422, body.encode())
    assert details == 1 or len(body) > 256 * 1024, "so long that it waits on disk"


def test_what_a_service_of_ours_does_not_say_is_not_passed_on(gateway: Fixture, service: Fixture, kit: Fixture) -> None:
    for body in ({"code": "internal error", "message": "x"}, {"code": "internal error", "message": "x" * 300_000}):
        service.reply = lambda *_, said=body: (
            "500 Oops", [("Content-Type", "application/json")], [json.dumps(said).encode()]
        )  # fmt: skip
        expect(gateway("POST", PATH, kit.issue(), data=LINES), 502)


def test_the_published_documents_say_so() -> None:
    routes = json.loads((ROOT / "schemas" / "routes.json").read_bytes())["routes"]
    assert [route["path"] for route in routes if route["influx_errors"]] == [PATH]
    schema = document("common")["$defs"]["InfluxErrorResponse"]
    assert schema["required"] == ["code", "message", "error"]
    openapi = json.loads((ROOT / "schemas" / "openapi.json").read_bytes())
    responses = openapi["paths"][PATH]["post"]["responses"]
    for status, response in responses.items():
        if status != "204":
            if "$ref" in response:
                response = openapi["components"]["responses"][response["$ref"].rpartition("/")[2]]
            content = {kind: one["schema"]["$ref"].rpartition("/")[2] for kind, one in response["content"].items()}
            # A head that is too long is not read, so that the gateway cannot know whose terms are wanted.
            in_json = "ErrorResponse" if status == "431" else "InfluxErrorResponse"
            assert content == {"application/json": in_json, "application/xml": "Error"}, status
    assert set(responses) >= {"204", "400", "401", "403", "404", "413", "415", "422", "429", "502", "503", "504"}
