import pytest

from heartguard.models.common import Check, Ready
from heartguard.settings import SettingsError, load
from services.gateway.src.readiness import judged
from services.gateway.src.settings import Settings

NEEDED = {"JWT_SECRET": "k" * 32, "REDIS_URL": "redis://localhost"}


def test_defaults() -> None:
    settings = load(Settings, NEEDED)
    assert (settings.rate_limit.limit, settings.rate_limit.seconds) == (100, 60)
    assert (settings.auth_rate_limit.limit, settings.auth_rate_limit.seconds) == (10, 60)
    assert settings.allowed_origins == frozenset()
    assert settings.trusted_proxies == ()
    assert settings.upstreams()["auth"] == "http://127.0.0.1:5001"
    assert settings.routes_file.name == "routes.json"


def test_services_are_found_by_url_or_else_by_port() -> None:
    settings = load(Settings, {**NEEDED, "AUTH_URL": "http://auth:9/", "TIMESERIES_PORT": "6005", "AUTH_PORT": "1"})
    assert settings.upstreams() == {
        "auth": "http://auth:9",
        "organization": "http://127.0.0.1:5002",
        "user": "http://127.0.0.1:5003",
        "media": "http://127.0.0.1:5004",
        "timeseries": "http://127.0.0.1:6005",
        "audit": "http://127.0.0.1:5006",
    }


def test_what_is_wrong_is_named() -> None:
    wrong = {"RATE_LIMIT": "many", "TRUSTED_PROXIES": "x", "AUTH_URL": "ftp://a", "UPSTREAM_TIMEOUT_SECONDS": "0"}
    with pytest.raises(SettingsError) as refused:
        load(Settings, {**NEEDED, **wrong})
    for name in wrong:
        assert name in str(refused.value)


@pytest.mark.parametrize(
    ("down", "status"),
    [
        (set(), "ready"),
        ({"valkey"}, "degraded"),
        ({"auth"}, "degraded"),
        ({"timeseries"}, "degraded"),
        ({"valkey", "timeseries"}, "degraded"),
        ({"valkey", "auth"}, "unavailable"),
        ({"auth", "timeseries"}, "unavailable"),
        ({"valkey", "auth", "timeseries"}, "unavailable"),
    ],
)
def test_the_gateway_is_unavailable_only_where_it_can_serve_nothing(down: set[str], status: str) -> None:
    checks = [
        Check(name=name, status="failed" if name in down else "ok", latency_ms=1)
        for name in ("valkey", "auth", "timeseries")
    ]
    assert judged(Ready(status="ready", checks=checks)).status == status
