"""The OpenAPI document, and the page to read and try it.

The page is one file when it is served: its stylesheet and scripts stand in it, and the policy that goes with it
names each by its hash. So nothing else can run there, not even a file that somebody uploaded to this very origin.
Trusted Types are demanded and none are allowed: where browsers know them, text cannot become markup at all.
"""

import hashlib
import re
from base64 import b64encode
from pathlib import Path

import msgspec
from flask import Response
from werkzeug.http import quote_etag

PAGE = Path(__file__).parent / "docs" / "page.html"

_PART = re.compile(r'<link rel="stylesheet" href="([a-z]+\.css)">|<script src="([a-z]+\.js)"></script>')

_KEPT = {"Cache-Control": "no-cache"}
"""May be kept, but is to be asked for again: unchanged it is a 304."""


class Pages:
    """What the gateway serves to read, made once. Immutable, so thread-safe."""

    def __init__(self, openapi_file: Path) -> None:
        self._openapi = msgspec.json.format(openapi_file.read_bytes(), indent=-1)
        self._openapi_headers = {**_KEPT, **_version(self._openapi)}
        self._page, policy = assembled(PAGE)
        self._page_headers = {
            **_KEPT,
            **_version(self._page),
            "Content-Security-Policy": policy,
            "Referrer-Policy": "no-referrer",
        }

    def openapi(self) -> Response:
        return Response(self._openapi, headers=self._openapi_headers, content_type="application/json")

    def page(self) -> Response:
        return Response(self._page, headers=self._page_headers, content_type="text/html; charset=utf-8")


def _version(content: bytes) -> dict[str, str]:
    return {"ETag": quote_etag(hashlib.sha256(content).hexdigest())}


def assembled(page: Path) -> tuple[bytes, str]:
    """The page with its parts in it, and the Content-Security-Policy that allows just these."""
    allowed: dict[str, list[str]] = {"style": [], "script": []}

    def inline(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        tag = "style" if name.endswith(".css") else "script"
        content = (page.parent / name).read_text()
        digest = hashlib.sha256(content.encode()).digest()
        allowed[tag].append(f"'sha256-{b64encode(digest).decode()}'")
        return f"<{tag}>{content}</{tag}>"

    html = _PART.sub(inline, page.read_text())
    policy = (
        f"default-src 'none'; script-src {' '.join(allowed['script'])}; style-src {' '.join(allowed['style'])};"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return html.encode(), policy
