"""The document as a whole."""

import importlib
from collections.abc import Iterable
from typing import Any

from .. import __version__
from ..endpoint import Endpoint
from ..services import SERVICES, Service
from .answers import error_responses
from .components import components
from .examples import Examples
from .operations import SCHEME, operation

DESCRIPTION = """
Heart data in and out, and everything round it, behind one gateway.

**Formats.** Every operation reads and answers JSON and XML: `Content-Type` says what is sent, `Accept` what is wanted.
Root elements are named for the type, a list `points` is `<points><point>…</point></points>`, and a map has one element
for each key; a key that is no XML name is written `<entry key="…">`.

**Errors** have one shape, whatever the status and the service; `request_id` finds them in the logs. It is the
`X-Request-ID` that was sent, or a new one. Where InfluxDB's clients write, their `code` and `message` stand before it.

**Limits.** `RateLimit` and `RateLimit-Policy` in the answers tell what is left, and when there is more.

**Who may call** is `x-audience`: P anyone, A signed in, M managers and admins, X admins, S services and admins.
""".strip()


def document(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The OpenAPI document of ``endpoints``, which may be of any number of services."""
    stated = list(endpoints)
    schemas = components([type_ for endpoint in stated for type_ in (endpoint.body, endpoint.answer) if type_])
    examples = Examples(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in stated:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation(endpoint, examples)
    tagged = {endpoint.service.name for endpoint in stated}
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "HeartGuard",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": service.name, "description": _description(service)}
            for service in SERVICES.values()
            if service.name in tagged
        ],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": error_responses(),
            "securitySchemes": {
                SCHEME: {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The `access_token` that `POST /auth/login` gives.",
                }
            },
        },
    }


def _description(service: Service) -> str:
    """What the service's application says of itself."""
    module = importlib.import_module(f"{service.package}.app")
    return (module.__doc__ or "").strip().partition("\n")[0]
