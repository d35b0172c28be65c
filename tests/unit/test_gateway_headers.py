import pytest

from services.gateway.src.cors import Cors
from services.gateway.src.headers import from_client, from_service, merge_vary


def passed(*, authorization: bool = True, **headers: str) -> dict[str, str]:
    environ = {"REQUEST_METHOD": "GET", "wsgi.version": (1, 0), **headers}
    return dict(from_client(environ, authorization=authorization))


def test_ordinary_headers_pass() -> None:
    assert passed(
        HTTP_ACCEPT="application/xml", HTTP_USER_AGENT="app/1", HTTP_IF_NONE_MATCH='"1"', HTTP_COOKIE="a=1",
        HTTP_AUTHORIZATION="Bearer x", CONTENT_TYPE="application/json",
    ) == {
        "accept": "application/xml", "user-agent": "app/1", "if-none-match": '"1"', "cookie": "a=1",
        "authorization": "Bearer x", "content-type": "application/json",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["X_FORWARDED_FOR", "X_FORWARDED_PROTO", "X_FORWARDED_HOST", "X_FORWARDED_ANYTHING", "FORWARDED", "X_REAL_IP",
     "X_GATEWAY_REQUEST_ID", "X_USER_ID", "X_USER", "X_ORG_ID", "X_ROLE", "X_AUTH_REQUEST_USER", "REMOTE_USER", "PROXY",
     "X_ORIGINAL_URL", "X_REWRITE_URL", "X_HTTP_METHOD_OVERRIDE", "TRUE_CLIENT_IP", "CF_CONNECTING_IP", "VIA", "HOST",
     "X_REQUEST_ID", "TRACEPARENT", "CONNECTION", "KEEP_ALIVE", "TE", "TRAILER", "UPGRADE", "TRANSFER_ENCODING",
     "PROXY_AUTHORIZATION", "PROXY_CONNECTION", "EXPECT", "HTTP2_SETTINGS"],
)  # fmt: skip
def test_a_client_cannot_say_what_services_trust_or_what_is_for_one_hop(name: str) -> None:
    assert passed(HTTP_USER_AGENT="x", **{f"HTTP_{name}": "keep"}) == {"user-agent": "x"}


def test_what_connection_names_is_dropped() -> None:
    assert passed(HTTP_CONNECTION="close, X-Hop", HTTP_X_HOP="1", HTTP_X_STAY="2", HTTP_USER_AGENT="x") == {
        "x-stay": "2",
        "user-agent": "x",
    }


def test_no_user_agent_is_made_up_and_no_token_shown_where_none_is_read() -> None:
    assert passed(HTTP_AUTHORIZATION="Bearer x", authorization=False) == {}


def test_header_values_outside_ascii_do_not_pass() -> None:
    assert passed(HTTP_X_NAME="J\u00fcrgen", HTTP_USER_AGENT="x") == {"user-agent": "x"}


def test_a_services_headers_are_cleaned_and_completed() -> None:
    given = [
        ("content-type", "application/json"), ("content-length", "2"), ("server", "granian"), ("date", "now"),
        ("vary", "Accept, Accept-Encoding"), ("x-request-id", "theirs"), ("access-control-allow-origin", "*"),
        ("connection", "x-hop"), ("x-hop", "1"), ("etag", '"1"'), ("set-cookie", "a=1"), ("set-cookie", "b=2"),
        ("x-powered-by", "x"), ("ratelimit", "x"),
    ]  # fmt: skip
    assert from_service(given) == [
        ("content-type", "application/json"), ("etag", '"1"'), ("set-cookie", "a=1"), ("set-cookie", "b=2"),
        ("vary", "Accept, Origin, Accept-Encoding"), ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    ]  # fmt: skip


def test_a_service_may_allow_caching() -> None:
    found = from_service([("cache-control", "public, max-age=60")])
    assert [value for name, value in found if name == "cache-control"] == ["public, max-age=60"]


def test_vary_is_a_set() -> None:
    assert merge_vary("Accept, Origin", "Accept") == "Accept, Origin"
    assert merge_vary("Accept, Origin", "origin, Cookie,") == "Accept, Origin, Cookie"


def test_cors_headers_are_for_allowed_origins_only() -> None:
    cors = Cors(frozenset({"https://portal.hg.io"}))
    assert ("Access-Control-Allow-Origin", "https://portal.hg.io") in cors.actual("https://portal.hg.io")
    assert ("Access-Control-Allow-Credentials", "true") in cors.actual("https://portal.hg.io")
    assert cors.actual("https://evil.example") == cors.actual(None) == []
    assert ("Access-Control-Allow-Origin", "https://portal.hg.io") in cors.preflight("https://portal.hg.io")
    assert [name for name, _ in cors.preflight("https://evil.example")] == ["Vary"]
