"""What passes through the gateway, and how."""

import json
import re
import uuid
from typing import Any

import pytest

Fixture = Any


def test_a_request_is_passed_on_and_answered(gateway: Fixture, service: Fixture, kit: Fixture) -> None:
    service.reply = lambda _environ, _body: (
        "201 Created",
        [("Content-Type", "application/json"), ("ETag", '"1"'), ("Server", "secret/1.2"), ("Vary", "Accept")],
        [b'{"id":1}'],
    )
    response = gateway(
        "POST",
        "/auth/login?next=%2Fx&a=%20b+c",
        data=b'{"email":"a"}',
        headers={"Content-Type": "application/json"},
    )
    assert (response.status_code, response.data) == (201, b'{"id":1}')
    assert response.headers["ETag"] == '"1"'
    assert response.headers["Vary"] == "Accept, Origin"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert "Server" not in response.headers
    (seen,) = service.seen
    assert (seen.method, seen.target) == ("POST", "/auth/login?next=%2Fx&a=%20b+c")
    assert seen.body == b'{"email":"a"}'
    assert seen.header("Content-Type") == "application/json"
    assert seen.header("Content-Length") == "13"


def test_ids_are_made_passed_on_and_returned(gateway: Fixture, service: Fixture, kit: Fixture) -> None:
    response = gateway("GET", "/auth/health")
    (seen,) = service.seen
    made = response.headers["X-Request-ID"]
    assert str(uuid.UUID(made)) == made == seen.header("X-Request-ID")
    assert response.headers["X-Gateway-Request-ID"] == seen.header("X-Gateway-Request-ID")
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", seen.header("traceparent"))
    other = gateway("GET", "/auth/health")
    assert other.headers["X-Gateway-Request-ID"] != response.headers["X-Gateway-Request-ID"]


def test_a_clients_ids_are_kept_where_they_are_well_formed(gateway: Fixture, service: Fixture) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    response = gateway(
        "GET",
        "/auth/health",
        headers={"X-Request-ID": "my.id-1", "traceparent": trace, "X-Gateway-Request-ID": "forged"},
    )
    assert response.headers["X-Request-ID"] == "my.id-1"
    assert service.seen[0].header("X-Request-ID") == "my.id-1"
    assert service.seen[0].header("traceparent") == trace
    assert service.seen[0].header("X-Gateway-Request-ID") != "forged"
    response = gateway("GET", "/auth/health", headers={"X-Request-ID": "no good!", "traceparent": "00-0-0-01"})
    assert response.headers["X-Request-ID"] != "no good!"
    assert service.seen[1].header("traceparent") != "00-0-0-01"


def test_services_learn_from_the_gateway_alone_who_calls_from_where(gateway: Fixture, service: Fixture) -> None:
    forged = {
        "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil",
        "Forwarded": "for=6.6.6.6", "X-Real-IP": "6.6.6.6", "X-User-ID": "1", "X-Org-ID": "1",
        "Connection": "close, X-Secret-Hop", "X-Secret-Hop": "1", "Proxy": "http://evil", "Accept-Language": "es",
    }  # fmt: skip
    gateway("GET", "/auth/health", headers=forged)
    (seen,) = service.seen
    assert seen.header("X-Forwarded-For") == gateway.ip
    assert seen.header("X-Forwarded-Proto") == "http"
    assert seen.header("X-Forwarded-Host") == "localhost"
    assert seen.header("Accept-Language") == "es"
    assert not {"forwarded", "x-real-ip", "x-user-id", "x-org-id", "x-secret-hop", "proxy"} & {
        name.lower() for name, _ in seen.headers
    }


def test_a_trusted_proxy_is_believed(make: Fixture, service: Fixture) -> None:
    gateway = make(AUTH_URL=service.url, TRUSTED_PROXIES="10.0.0.0/8")
    forwarded = {
        "X-Forwarded-For": "6.6.6.6, 203.0.113.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "api.hg.io",
    }
    gateway("GET", "/auth/health", headers=forwarded, ip="10.1.1.1")
    gateway("GET", "/auth/health", headers={**forwarded, "X-Forwarded-Proto": "gopher"}, ip="10.1.1.1")
    seen, other = service.seen
    assert seen.header("X-Forwarded-For") == "203.0.113.9"
    assert seen.header("X-Forwarded-Proto") == "https"
    assert seen.header("X-Forwarded-Host") == "api.hg.io"
    assert other.header("X-Forwarded-Proto") == "http"


def test_the_token_goes_only_where_it_is_read(gateway: Fixture, service: Fixture, kit: Fixture) -> None:
    token = kit.issue()
    gateway("GET", "/auth/profile", token)
    gateway("POST", "/auth/register", token)
    gateway("GET", "/auth/health", token)
    assert [seen.header("Authorization") for seen in service.seen] == [f"Bearer {token}"] * 2 + [None]


def test_head_is_get_without_the_body(gateway: Fixture, service: Fixture, kit: Fixture) -> None:
    service.reply = lambda _environ, _body: ("200 OK", [("Content-Length", "1234")], [])
    response = gateway("HEAD", "/auth/profile", kit.issue())
    assert (response.status_code, response.data) == (200, b"")
    assert response.headers["Content-Length"] == "1234"
    assert service.seen[0].method == "HEAD"


@pytest.mark.parametrize(("status", "body"), [("204 No Content", b""), ("304 Not Modified", b"")])
def test_answers_without_a_body(gateway: Fixture, service: Fixture, kit: Fixture, status: str, body: bytes) -> None:
    service.reply = lambda _environ, _body: (status, [("ETag", '"1"')], [])
    response = gateway("GET", "/auth/profile", kit.issue())
    assert (response.status, response.data) == (status, body)


def test_a_path_is_encoded_anew(gateway: Fixture, service: Fixture, kit: Fixture) -> None:
    gateway("DELETE", "/timeseries/buckets/a%20%C3%A9%25", kit.issue("admin"))
    assert service.seen[0].target == "/timeseries/buckets/a%20%C3%A9%25"


def test_a_services_redirects_cookies_and_packed_answers_are_not_touched(
    gateway: Fixture, service: Fixture, kit: Fixture
) -> None:
    service.reply = lambda _environ, _body: (
        "307 Temporary Redirect",
        [("Location", "/x"), ("Content-Encoding", "gzip"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")],
        [b"\x1f\x8bpacked"],
    )  # fmt: skip
    response = gateway("GET", "/auth/profile", kit.issue())
    assert response.status_code == 307
    assert response.data == b"\x1f\x8bpacked"
    assert response.headers.getlist("Set-Cookie") == ["a=1", "b=2"]
    assert len(service.seen) == 1


def test_a_services_own_error_passes(gateway: Fixture, service: Fixture, kit: Fixture) -> None:
    told = b'{"error":{"code":"TS_002","message":"m","request_id":"r","details":[{"path":"/a","message":"b"}]}}'
    service.reply = lambda _environ, _body: ("422 Unprocessable Entity", [("Content-Type", "application/json")], [told])
    assert gateway("GET", "/auth/profile", kit.issue()).data == told
    told = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><code>AUTH_503</code></Error>'
    service.reply = lambda _environ, _body: ("503 Service Unavailable", [("Content-Type", "application/xml")], [told])
    response = gateway("GET", "/auth/profile", kit.issue())
    assert (response.status_code, response.data) == (503, told)


@pytest.mark.parametrize("method", ["OPTIONS"])
@pytest.mark.parametrize("path", ["/auth/profile", "/gateway/health", "/nowhere", "*"])
def test_preflights(gateway: Fixture, service: Fixture, method: str, path: str) -> None:
    headers = {"Origin": "https://portal.hg.io", "Access-Control-Request-Method": "PUT"}
    response = gateway(method, path, headers=headers)
    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == "https://portal.hg.io"
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    assert "PUT" in response.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
    assert "Origin" in response.headers["Vary"]
    response = gateway(method, path, headers={**headers, "Origin": "https://evil.example"})
    assert response.status_code == 204
    assert "Origin" in response.headers["Vary"]
    assert not [name for name, _ in response.headers if name.lower().startswith("access-control")]
    assert service.seen == []


@pytest.mark.parametrize("path", ["/auth/health", "/gateway/health", "/nowhere", "/auth/nowhere"])
def test_answers_may_be_read_by_allowed_origins(gateway: Fixture, path: str) -> None:
    response = gateway("GET", path, headers={"Origin": "https://portal.hg.io"})
    assert response.headers["Access-Control-Allow-Origin"] == "https://portal.hg.io"
    assert "X-Request-ID" in response.headers["Access-Control-Expose-Headers"]
    assert response.headers["Vary"] == "Accept, Origin"
    response = gateway("GET", path, headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in response.headers
    assert response.headers["Vary"] == "Accept, Origin"


def test_every_request_leaves_one_line(gateway: Fixture, kit: Fixture, capfd: pytest.CaptureFixture[str]) -> None:
    gateway("DELETE", "/timeseries/buckets/b1", kit.issue("manager"), headers={"X-Request-ID": "find-me"})
    (line,) = [json.loads(line) for line in capfd.readouterr().out.splitlines() if '"event":"request"' in line]
    assert line.items() >= {
        "level": "INFO", "service": "gateway", "event": "request", "request_id": "find-me", "method": "DELETE",
        "path": "/timeseries/buckets/*", "route": "/timeseries/buckets/{bucket}", "status": 200, "org_id": 1,
    }.items()  # fmt: skip
    assert line["user_id"] >= 1000
    assert 0 < line["upstream_ms"] < line["latency_ms"]


def test_a_higher_log_level_silences_requests(
    make: Fixture, service: Fixture, capfd: pytest.CaptureFixture[str]
) -> None:
    gateway = make(AUTH_URL=service.url, LOG_LEVEL="WARNING")
    assert gateway("GET", "/auth/health").status_code == 200
    assert capfd.readouterr().out == ""
