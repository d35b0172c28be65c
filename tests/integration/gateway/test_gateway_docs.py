"""The OpenAPI document and the page that shows it, as the gateway serves them."""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from lxml import html

from heartguard.settings import ROOT

PATHS = ["/gateway/openapi.json", "/gateway/docs"]


@pytest.mark.parametrize("path", PATHS)
def test_anyone_may_read_and_keep_it(gateway: Any, path: str) -> None:
    answer = gateway("GET", path)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    again = gateway("GET", path, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert gateway("GET", path, headers={"If-None-Match": '"another"'}).data == answer.data
    head = gateway("HEAD", path)
    assert (head.status_code, head.data, head.headers["ETag"]) == (200, b"", answer.headers["ETag"])
    assert gateway("POST", path).status_code == 405


@pytest.mark.parametrize("path", PATHS)
def test_another_version_is_an_error_and_not_the_page(gateway: Any, path: str) -> None:
    etag = gateway("GET", path).headers["ETag"]
    for wanted in (etag, "*"):
        assert gateway("GET", path, headers={"If-Match": wanted}).status_code == 200
    failed = gateway("GET", path, headers={"If-Match": '"another"'})
    assert (failed.status_code, failed.json["error"]["code"]) == (412, "GATEWAY_412")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("accept", ["text/html", "image/png", "application/xml", "*/*"])
def test_it_has_one_form_whatever_is_asked_for(gateway: Any, path: str, accept: str) -> None:
    assert gateway("GET", path, headers={"Accept": accept}).data == gateway("GET", path).data


def test_the_document_is_the_published_one(gateway: Any) -> None:
    answer = gateway("GET", "/gateway/openapi.json")
    assert answer.content_type == "application/json"
    assert answer.json == json.loads((ROOT / "schemas" / "openapi.json").read_bytes())


def test_pages_of_allowed_origins_may_read_the_document(gateway: Any) -> None:
    for origin, allowed in (("https://portal.hg.io", "https://portal.hg.io"), ("https://other.io", None)):
        answer = gateway("GET", "/gateway/openapi.json", headers={"Origin": origin})
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed
        assert "Origin" in answer.headers["Vary"]


def test_nothing_else_lies_beside_the_page(make: Callable[..., Any]) -> None:
    gateway = make(RATE_LIMIT="2/hour")
    paths = ["/gateway/docs/", "/gateway/docs/page.js", "/gateway/docs/../settings.py"]
    assert [gateway("GET", path).status_code for path in paths] == [404, 404, 429]
    assert gateway("GET", "/gateway/docs").status_code == 200


def test_only_what_the_page_brings_can_run(gateway: Any) -> None:
    """Every script and style is allowed by its hash, nothing else is, and nothing in the page asks for more."""
    answer = gateway("GET", "/gateway/docs")
    policy = dict(part.split(maxsplit=1) for part in answer.headers["Content-Security-Policy"].split("; "))
    root = html.fromstring(answer.data)
    for directive, tag in (("script-src", "script"), ("style-src", "style")):
        texts = [element.text for element in root.iter(tag)]
        assert texts
        assert policy.pop(directive).split() == [f"'sha256-{digest(text)}'" for text in texts]
    assert policy == {
        "default-src": "'none'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    names = {name for element in root.iter() for name in getattr(element, "attrib", {})}
    assert not [name for name in names if name.startswith("on") or name in {"style", "src", "action", "formaction"}]
    assert set(root.xpath("//@href")) == {"#operations", "openapi.json"}


def digest(text: str) -> str:
    return b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_scripts_never_make_markup_or_keep_the_token(gateway: Any) -> None:
    root = html.fromstring(gateway("GET", "/gateway/docs").data)
    scripts = "\n".join(element.text for element in root.iter("script"))
    assert "fetch(" in scripts
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(|Storage|cookie|https?://"
    assert re.findall(forbidden, scripts) == []
