import pytest

from heartguard.errors import Malformed
from services.gateway.src import headers as module
from services.gateway.src.cors import Cors
from services.gateway.src.headers import from_client, from_service, merge_vary


def passed(headers: dict[str, str], *, authorization: bool = True) -> dict[str, str]:
    return dict(from_client(headers, authorization=authorization))


def test_ordinary_headers_pass() -> None:
    headers = {
        "accept": "application/xml", "user-agent": "app/1", "if-none-match": '"1"', "cookie": "a=1",
        "authorization": "Bearer x", "content-type": "application/json",
    }  # fmt: skip
    assert passed(headers) == headers


@pytest.mark.parametrize(
    "name",
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-anything", "forwarded", "x-real-ip",
     "x-gateway-request-id", "x-user-id", "x-user", "x-org-id", "x-role", "x-auth-request-user", "remote-user", "proxy",
     "x-original-url", "x-rewrite-url", "x-http-method-override", "true-client-ip", "cf-connecting-ip", "via", "host",
     "x-request-id", "traceparent", "connection", "keep-alive", "te", "trailer", "upgrade", "transfer-encoding",
     "proxy-authorization", "proxy-connection", "expect", "http2-settings", "content-length",
     "x_user_id", "x_forwarded_for", "x-user_id", "content_length", "harmless_but_odd"],
)  # fmt: skip
def test_a_client_cannot_say_what_services_trust_or_what_is_for_one_hop(name: str) -> None:
    assert passed({"user-agent": "x", name: "keep"}) == {"user-agent": "x"}


def test_what_connection_names_is_dropped() -> None:
    assert passed({"connection": "close, X-Hop", "x-hop": "1", "x-stay": "2", "user-agent": "x"}) == {
        "x-stay": "2",
        "user-agent": "x",
    }


def test_no_user_agent_is_made_up_and_no_token_shown_where_none_is_read() -> None:
    assert passed({"authorization": "Bearer x"}, authorization=False) == {}


def test_header_values_outside_ascii_do_not_pass() -> None:
    assert passed({"x-name": "J\u00fcrgen", "user-agent": "x"}) == {"user-agent": "x"}


@pytest.mark.parametrize("name", ["if-match", "if-none-match"])
@pytest.mark.parametrize("extra", [{}, {"connection": "keep-alive, If-Match, If-None-Match"}])
def test_a_precondition_is_never_dropped(name: str, extra: dict[str, str]) -> None:
    with pytest.raises(Malformed):
        passed({name: '"1"' if extra else '"\u00e9"', **extra})


def test_long_names_and_lists_are_not_remembered() -> None:
    before = module._listed.cache_info().misses
    assert passed({"x-" + "a" * 63: "1", "connection": "x-b, " + "a" * 64, "x-b": "2"}) == {"x-" + "a" * 63: "1"}
    assert "x-" + "a" * 63 not in module._passing
    assert module._listed.cache_info().misses == before


def test_names_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = module._Passing()
    monkeypatch.setattr(module._Passing, "KEPT", 2)
    assert [kept[f"x-{number}"] for number in range(4)] == [True] * 4
    assert len(kept) == 2


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
    assert ("access-control-allow-origin", "https://portal.hg.io") in cors.actual("https://portal.hg.io")
    assert ("access-control-allow-credentials", "true") in cors.actual("https://portal.hg.io")
    assert cors.actual("https://evil.example") == cors.actual(None) == []
    assert ("access-control-allow-origin", "https://portal.hg.io") in cors.preflight("https://portal.hg.io")
    assert [name for name, _ in cors.preflight("https://evil.example")] == ["vary"]
