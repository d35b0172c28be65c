"""Every route states who may call it, and the statements are those of the contract."""

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
from flask import Flask

from heartguard.policy import Audience
from heartguard.roles import ROLES
from heartguard.services import SERVICES
from heartguard.settings import ROOT, load

CONTRACT = {
    "auth": {
        ("POST", "/auth/register"): "P",
        ("POST", "/auth/login"): "P",
        ("POST", "/auth/refresh"): "P",
        ("POST", "/auth/logout"): "A",
        ("PUT", "/auth/password"): "A",
        ("GET", "/auth/sessions"): "A",
        ("DELETE", "/auth/sessions/{id}"): "A",
        ("GET", "/auth/profile"): "A",
        ("GET", "/auth/roles"): "A",
        ("POST", "/auth/token/introspect"): "S",
        ("GET", "/auth/health"): "P",
        ("GET", "/auth/ready"): "I",
        ("GET", "/auth/metrics"): "I",
    },
    "organization": {
        ("GET", "/organization"): "A",
        ("PUT", "/organization"): "M",
        ("GET", "/organization/policies"): "A",
        ("GET", "/organization/health"): "P",
        ("GET", "/organization/ready"): "I",
        ("GET", "/organization/metrics"): "I",
    },
    "user": {
        ("GET", "/users/me"): "A",
        ("PUT", "/users/me"): "A",
        ("GET", "/users/{id}"): "X",
        ("GET", "/users"): "M",
        ("PUT", "/users/{id}/role"): "X",
        ("DELETE", "/users/{id}"): "X",
        ("GET", "/users/health"): "P",
        ("GET", "/users/ready"): "I",
        ("GET", "/users/metrics"): "I",
    },
    "timeseries": {
        ("POST", "/timeseries/write"): "A",
        ("POST", "/timeseries/api/v2/write"): "A",
        ("POST", "/timeseries/query"): "A",
        ("POST", "/timeseries/buckets"): "X",
        ("GET", "/timeseries/buckets"): "A",
        ("DELETE", "/timeseries/buckets/{bucket}"): "X",
        ("GET", "/timeseries/health"): "P",
        ("GET", "/timeseries/ready"): "I",
        ("GET", "/timeseries/metrics"): "I",
    },
    "media": {
        ("POST", "/media/upload"): "A",
        ("GET", "/media/items"): "A",
        ("GET", "/media/items/{id}"): "A",
        ("GET", "/media/items/{id}/download"): "A",
        ("DELETE", "/media/items/{id}"): "X",
        ("GET", "/media/objects/{organization}/{owner}/{id}/{name}"): "P",  # where the local store's links lead
        ("GET", "/media/health"): "P",
        ("GET", "/media/ready"): "I",
        ("GET", "/media/metrics"): "I",
    },
    "audit": {
        ("POST", "/audit/events"): "S",
        ("GET", "/audit/events"): "X",
        ("GET", "/audit/verify"): "X",
        ("GET", "/audit/export"): "X",
        ("GET", "/audit/health"): "P",
        ("GET", "/audit/ready"): "I",
        ("GET", "/audit/metrics"): "I",
    },
    "gateway": {
        ("GET", "/gateway/health"): "P",
        ("GET", "/gateway/ready"): "P",
        ("GET", "/gateway/metrics"): "P",
        ("GET", "/gateway/openapi.json"): "P",
        ("GET", "/gateway/docs"): "P",
    },
}
"""The contract's routes that are built so far. I is open on the service's own port and X at the gateway; the
gateway's metrics are open to the networks in METRICS_ALLOW, which the view itself judges."""


@pytest.fixture(params=sorted(SERVICES))
def app(
    request: pytest.FixtureRequest, url_for: Callable[[str], str], valkey_url: str, tmp_path: Path
) -> Iterator[Flask]:
    package = SERVICES[request.param].package
    environ = {
        "JWT_SECRET": "j" * 32,
        "DATABASE_URL": url_for(request.param) if request.param in ROLES else "",
        "REDIS_URL": valkey_url,
        "HEARTGUARD_DATA": str(tmp_path),
        "BOOTSTRAP_ADMIN_PASSWORD": "a long enough password",
        "AUDIT_SIGNING_KEY": "k" * 32,
        "AUDIT_SPOOL": str(tmp_path / "spool"),
    }
    settings = load(import_module(f"{package}.settings").Settings, environ)
    app = import_module(f"{package}.app").create_app(settings)
    yield app
    if trail := app.extensions.get("heartguard.audit"):
        trail.stop()
    if close := app.extensions.get("heartguard.close"):
        close()
    if housekeeping := app.extensions.get("heartguard.housekeeping"):
        housekeeping.stop()  # it would go on publishing to the Valkey that other tests arrange
        housekeeping._database.close()
        housekeeping._revocations._valkey.close()


def test_every_route_states_its_audience(app: Flask) -> None:
    stated = {endpoint.name: endpoint for endpoint in app.extensions["heartguard.endpoints"]}
    for rule in app.url_map.iter_rules():
        assert rule.endpoint in stated, f"{rule} has no statement"
        endpoint = stated[rule.endpoint]
        assert isinstance(endpoint.audience, Audience), f"{rule} states no audience"
        assert (rule.methods or set()) - {"HEAD"} == {endpoint.method}


def test_the_statements_are_the_contract(app: Flask) -> None:
    stated = {
        (endpoint.method, endpoint.path): str(endpoint.audience) for endpoint in app.extensions["heartguard.endpoints"]
    }
    assert stated == CONTRACT[app.name]


def test_the_gateway_is_told_of_every_route() -> None:
    published = json.loads((ROOT / "schemas" / "routes.json").read_text())
    told = {(route["method"], route["path"]): route["audience"] for route in published["routes"]}
    behind = [routes for service, routes in CONTRACT.items() if service != "gateway"]
    assert told == {route: audience for routes in behind for route, audience in routes.items()}
