"""Who is let through: limits, tokens, revocations, policy, and in which order they speak."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from heartguard.valkey import REVOCATIONS_COMPLETE, REVOKED_SESSION, REVOKED_TOKEN

Fixture = Any
XML = {"Accept": "application/xml"}


@pytest.fixture
def limited(make: Fixture, service: Fixture) -> Fixture:
    return make(AUTH_URL=service.url, TIMESERIES_URL=service.url, RATE_LIMIT="3/min", AUTH_RATE_LIMIT="2/min")


def test_every_answer_says_what_is_left(limited: Fixture, kit: Fixture) -> None:
    response = limited("GET", "/auth/profile", kit.issue())
    assert response.headers["RateLimit-Policy"] == '"ip";q=3;w=60, "user";q=3;w=60'
    assert response.headers["RateLimit"] == '"ip";r=2;t=20, "user";r=2;t=20'
    response = limited("GET", "/auth/profile")
    assert response.status_code == 401
    assert response.headers["RateLimit-Policy"] == '"ip";q=3;w=60'
    assert response.headers["RateLimit"].startswith('"ip";r=1;t=')


def test_an_address_has_one_bucket_for_everything_but_signing_in(
    limited: Fixture, service: Fixture, kit: Fixture
) -> None:
    paths = ["/auth/health", "/nowhere", "/auth/nowhere", "/auth/health"]
    assert [limited("GET", path).status_code for path in paths] == [200, 404, 404, 429]
    assert limited("GET", "/nowhere").status_code == 429
    refused = limited("GET", "/auth/profile", kit.issue(), headers=XML)
    assert refused.status_code == 429
    assert kit.error_of(refused)["code"] == "GATEWAY_429"
    assert 1 <= int(refused.headers["Retry-After"]) <= 20
    assert refused.headers["RateLimit"].startswith(f'"ip";r=0;t={refused.headers["Retry-After"]}, "user";r=3;t=0')
    assert len(service.seen) == 1
    assert limited("POST", "/auth/login").headers["RateLimit-Policy"] == '"auth";q=2;w=60'
    assert limited("POST", "/auth/refresh").status_code == 200
    assert limited("POST", "/auth/register").status_code == 429
    assert limited("GET", "/auth/health", ip="198.51.100.77").status_code == 200


def test_a_user_has_one_bucket_from_wherever(limited: Fixture, kit: Fixture) -> None:
    token = kit.issue()
    codes = [limited("GET", "/auth/profile", token, ip=f"203.0.113.{host}").status_code for host in range(4)]
    assert codes == [200, 200, 200, 429]


def test_preflights_and_the_gateways_own_pages_are_not_limited(limited: Fixture) -> None:
    for _ in range(6):
        assert limited("OPTIONS", "/auth/profile").status_code == 204
        assert limited("GET", "/gateway/health").status_code == 200
    assert [limited("GET", "/gateway/nowhere").status_code for _ in range(4)] == [404, 404, 404, 429]


def test_what_is_malformed_counts_too(limited: Fixture) -> None:
    two = [("Host", "a"), ("Host", "b")]
    assert [limited("GET", "/gateway/health", headers=two).status_code for _ in range(4)] == [400, 400, 400, 429]


def test_what_is_told_first(make: Fixture, service: Fixture, kit: Fixture, redis: Redis) -> None:
    gateway = make(AUTH_URL=service.url, TIMESERIES_URL=service.url, RATE_LIMIT="5/min")
    user = kit.issue("user")
    revoked = kit.issue("user")
    redis.set(REVOKED_TOKEN + kit.tokens().verify(revoked).jti, 1, ex=60)
    asked = [
        gateway("POST", "/timeseries/buckets", None),
        gateway("POST", "/timeseries/buckets", "rubbish"),
        gateway("POST", "/timeseries/buckets", revoked),  # revoked, before: may not
        gateway("POST", "/timeseries/buckets", user),  # may not, before: the body is too large
        gateway("POST", "/timeseries/buckets", kit.issue("admin"), data=b"x" * 70_000),
        gateway("POST", "/timeseries/buckets", "rubbish"),  # too many, before: bad token
    ]
    assert [response.status_code for response in asked] == [401, 401, 401, 403, 413, 429]
    assert service.seen == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/auth/health", "none user manager admin service"),
        ("GET", "/auth/profile", "user manager admin"),
        ("DELETE", "/timeseries/buckets/b", "manager admin"),
        ("POST", "/timeseries/buckets", "admin"),
        ("GET", "/auth/ready", "admin"),
    ],
)
def test_the_policy(gateway: Fixture, kit: Fixture, method: str, path: str, allowed: str) -> None:
    for role in ("none", "user", "manager", "admin", "service"):
        token = None if role == "none" else kit.issue(role)
        expected = 200 if role in allowed.split() else 401 if role == "none" else 403
        assert gateway(method, path, token).status_code == expected, role


def test_services_and_admins_may_introspect(gateway: Fixture, kit: Fixture) -> None:
    assert gateway("POST", "/auth/token/introspect", kit.issue("user")).status_code == 403
    assert gateway("POST", "/auth/token/introspect", kit.tokens().service_token()).status_code == 200


def test_public_routes_do_not_look_at_a_token_unless_they_say_so(gateway: Fixture, kit: Fixture) -> None:
    assert gateway("POST", "/auth/login", "rubbish").status_code == 200
    assert gateway("POST", "/auth/register").status_code == 200
    assert gateway("POST", "/auth/register", kit.issue("admin")).status_code == 200
    assert gateway("POST", "/auth/register", "rubbish").status_code == 401


@pytest.mark.parametrize("kind", ["expired", "refresh", "foreign", "garbled"])
def test_bad_tokens(gateway: Fixture, service: Fixture, kit: Fixture, kind: str) -> None:
    token = {
        "expired": lambda: kit.issue(seconds=-1),
        "refresh": lambda: kit.issue(typ="refresh"),
        "foreign": lambda: kit.issue()[:-8] + "AAAAAAAA",
        "garbled": lambda: "a.b.c",
    }[kind]()
    for headers, mimetype in (({}, "application/json"), (XML, "application/xml")):
        response = gateway("GET", "/auth/profile", token, headers=headers)
        assert (response.status_code, response.mimetype) == (401, mimetype)
        assert kit.error_of(response)["code"] == "GATEWAY_401"
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert service.seen == []


@pytest.mark.parametrize("prefix", [REVOKED_TOKEN, REVOKED_SESSION])
def test_a_revoked_token_is_dead_at_once(
    gateway: Fixture, service: Fixture, kit: Fixture, redis: Redis, prefix: str
) -> None:
    token = kit.issue(sid="a-session-to-end")
    assert gateway("GET", "/auth/profile", token).status_code == 200
    claims = kit.tokens().verify(token)
    key = prefix + (claims.jti if prefix == REVOKED_TOKEN else claims.sid)
    redis.set(key, 1, ex=60)
    try:
        assert gateway("GET", "/auth/profile", token).status_code == 401
    finally:
        redis.delete(key)
    assert service.introspected == 0


@pytest.mark.parametrize("marker", [None, "another process's id"])
def test_where_the_list_may_lack_something_auth_is_asked(
    gateway: Fixture, service: Fixture, kit: Fixture, redis: Redis, marker: str | None
) -> None:
    redis.delete(REVOCATIONS_COMPLETE)
    if marker:
        redis.set(REVOCATIONS_COMPLETE, marker)
    assert gateway("GET", "/auth/profile", kit.issue()).status_code == 200
    assert service.introspected == 1
    service.active = False
    token = kit.issue()
    assert gateway("GET", "/auth/profile", token).status_code == 401
    redis.set(REVOKED_TOKEN + kit.tokens().verify(token).jti, 1, ex=60)
    assert gateway("GET", "/auth/profile", token).status_code == 401
    assert service.introspected == 2, "what the list holds is revoked, complete or not"


def test_auths_yes_is_believed_for_a_moment_only(
    gateway: Fixture, service: Fixture, kit: Fixture, redis: Redis
) -> None:
    redis.delete(REVOCATIONS_COMPLETE)
    token = kit.issue()
    begun = time.monotonic()
    while time.monotonic() < begun + 0.2:
        assert gateway("GET", "/auth/profile", token).status_code == 200
    assert service.introspected == 1
    service.active = False
    while (code := gateway("GET", "/auth/profile", token).status_code) == 200:
        assert time.monotonic() < begun + 5
    assert code == 401
    assert time.monotonic() >= begun + 0.5


@pytest.fixture
def blind(make: Fixture, free_port: Callable[[], int]) -> Callable[[str], Fixture]:
    """Makes gateways that find no Valkey."""
    return lambda auth_url: make(
        AUTH_URL=auth_url, REDIS_URL=f"redis://127.0.0.1:{free_port()}", RATE_LIMIT="4/min", TIMESERIES_URL=auth_url
    )


def test_without_valkey_auth_is_asked_and_memory_limits(blind: Fixture, service: Fixture, kit: Fixture) -> None:
    gateway = blind(service.url)
    token = kit.issue()
    response = gateway("GET", "/auth/profile", token)
    assert response.status_code == 200
    assert response.headers["RateLimit"] == '"ip";r=3;t=15, "user";r=3;t=15'
    assert [gateway("GET", "/auth/profile", token).status_code for _ in range(4)] == [200, 200, 200, 429]
    assert service.introspected == 1
    service.active = False
    assert gateway("GET", "/auth/profile", kit.issue(), ip="198.51.100.8").status_code == 401


def test_without_valkey_and_auth_nobody_passes(blind: Fixture, kit: Fixture, free_port: Callable[[], int]) -> None:
    gateway = blind(f"http://127.0.0.1:{free_port()}")
    for headers in ({}, XML):
        response = gateway("GET", "/timeseries/buckets", kit.issue(), headers=headers)
        assert response.status_code == 503
        assert kit.error_of(response)["code"] == "GATEWAY_503"
        assert response.headers["Retry-After"] == "1"


@pytest.mark.parametrize("answer", [("500 Oops", b"{}"), ("200 OK", b"not json"), ("200 OK", b'{"active":"yes"}')])
def test_an_answer_that_makes_no_sense_is_none(
    make: Fixture, kit: Fixture, redis: Redis, answer: tuple[str, bytes]
) -> None:
    status, body = answer

    def handle(connection: Any) -> None:
        connection.recv(65_536)
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    redis.delete(REVOCATIONS_COMPLETE)
    with kit.raw_server(handle) as url:
        assert make(AUTH_URL=url)("GET", "/auth/profile", kit.issue()).status_code == 503


def test_metrics_are_for_the_networks_allowed_and_for_admins(make: Fixture, service: Fixture, kit: Fixture) -> None:
    gateway = make(AUTH_URL=service.url, METRICS_ALLOW="127.0.0.0/8,192.0.2.0/24", TRUSTED_PROXIES="10.0.0.0/8")
    ask = lambda ip, token=None, **headers: gateway("GET", "/gateway/metrics", token, ip=ip, headers=headers)  # noqa: E731
    assert b"heartguard_requests_total" in ask("127.0.0.1").data
    assert ask("127.0.0.1").mimetype == "text/plain"
    assert ask("192.0.2.200").status_code == 200
    assert ask("203.0.113.1").status_code == 401
    assert ask("203.0.113.1", kit.issue("manager")).status_code == 403
    assert ask("203.0.113.1", kit.issue("admin")).status_code == 200
    assert ask("127.0.0.1", None, **{"X-Forwarded-For": "203.0.113.1"}).status_code == 200  # from no trusted proxy
    assert ask("10.0.0.1", None, **{"X-Forwarded-For": "203.0.113.1"}).status_code == 401
    assert ask("10.0.0.1", None, **{"X-Forwarded-For": "192.0.2.7"}).status_code == 200
    assert kit.error_of(ask("203.0.113.1", None, **XML))["code"] == "GATEWAY_401"
