import json
from pathlib import Path

import pytest

from heartguard.errors import Malformed, NotFound, ServiceError
from heartguard.policy import Audience
from services.gateway.src.routes import Route, Routes, is_proxied


def route(method: str, path: str, **options: object) -> Route:
    return Route(service="auth", method=method, path=path, audience=Audience.SIGNED_IN, max_body=0, **options)


ROUTES = Routes(
    [
        route("GET", "/auth/profile"),
        route("GET", "/auth/sessions"),
        route("POST", "/auth/login"),
        route("DELETE", "/auth/sessions/{id}"),
        route("DELETE", "/timeseries/buckets/{bucket}"),
        route("GET", "/media/items/{id}/download"),
    ]
)


@pytest.mark.parametrize(
    ("path", "template", "target"),
    [
        ("/auth/profile", "/auth/profile", "/auth/profile"),
        ("/auth/sessions/12", "/auth/sessions/{id}", "/auth/sessions/12"),
        ("/auth/sessions/...", "/auth/sessions/{id}", "/auth/sessions/..."),
        ("/media/items/a b/download", "/media/items/{id}/download", "/media/items/a%20b/download"),
        ("/timeseries/buckets/a%2e", "/timeseries/buckets/{bucket}", "/timeseries/buckets/a%252e"),
        ("/timeseries/buckets/\u00e9?#", "/timeseries/buckets/{bucket}", "/timeseries/buckets/%C3%A9%3F%23"),
        ("/timeseries/buckets/a%20", "/timeseries/buckets/{bucket}", "/timeseries/buckets/a%2520"),
    ],
)
def test_the_path_forwarded_is_the_path_judged(path: str, template: str, target: str) -> None:
    found, forwarded = ROUTES.find(path)
    assert found.path == template
    assert forwarded == target


@pytest.mark.parametrize(
    "path",
    ["/auth//profile", "/auth/./profile", "/auth/../auth/profile", "/auth/sessions/..", "/auth/sessions/.",
     "/auth\\profile", "/auth/sessions/a\x00b", "/auth/sessions/a\r\nb", "/auth/sessions/\x7f",
     "/auth/sessions/\ufffd"],
)  # fmt: skip
def test_a_path_that_can_be_read_in_two_ways_is_refused(path: str) -> None:
    with pytest.raises(Malformed):
        ROUTES.find(path)


@pytest.mark.parametrize("path", ["/auth", "/auth/", "/auth/profile/", "/auth/sessions/1/2", "/AUTH/profile", "*", ""])
def test_a_path_that_nobody_stated_is_not_found(path: str) -> None:
    with pytest.raises(NotFound):
        ROUTES.find(path)


def test_a_wrong_method_names_the_right_ones() -> None:
    with pytest.raises(ServiceError) as refused:
        ROUTES.find("/auth/profile")[0].route("DELETE")
    assert refused.value.status == 405
    assert refused.value.headers == {"Allow": "GET, HEAD, OPTIONS"}
    with pytest.raises(ServiceError) as refused:
        ROUTES.find("/auth/login")[0].route("HEAD")
    assert refused.value.headers == {"Allow": "OPTIONS, POST"}


def test_head_goes_where_get_does() -> None:
    assert ROUTES.find("/auth/profile")[0].route("HEAD").method == "GET"


def test_no_routes_match_nothing() -> None:
    with pytest.raises(NotFound):
        Routes([]).find("/auth/profile")


def test_routes_are_read_as_published(tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    stated = {"service": "auth", "name": "login", "method": "POST", "path": "/auth/login", "audience": "P",
              "optional_caller": False, "max_body": 65536, "audit": "LOGIN", "formats": []}  # fmt: skip
    file.write_text(json.dumps({"routes": [stated]}))
    login = Routes.load(file, 1000).find("/auth/login")[0].route("POST")
    assert (login.audience, login.body_limit, login.stricter, login.changes) == (Audience.PUBLIC, 65536, True, True)
    assert not login.reads_token
    assert login.too_large is None
    file.write_text(json.dumps({"routes": [{**stated, "service": "media", "path": "/media/upload", "upload": True}]}))
    upload = Routes.load(file, 1000).find("/media/upload")[0].route("POST")
    assert (upload.body_limit, upload.too_large) == (1000, "MEDIA_413")


def test_what_a_route_says_of_itself() -> None:
    profile = ROUTES.find("/auth/profile")[0].route("GET")
    assert (profile.stricter, profile.changes, profile.reads_token) == (False, False, True)
    assert profile.body_limit == 64 * 1024
    optional = Route(
        service="auth", method="POST", path="/x", audience=Audience.PUBLIC, max_body=9, optional_caller=True
    )
    assert optional.reads_token
    assert optional.body_limit == 9


@pytest.mark.parametrize(
    ("path", "proxied"),
    [("/auth", True), ("/auth/x", True), ("/timeseries/x", True), ("/authx", False), ("/gateway/health", False),
     ("/", False), ("*", False), ("", False)],
)  # fmt: skip
def test_only_the_services_paths_are_proxied(path: str, proxied: bool) -> None:
    assert is_proxied(path) is proxied
