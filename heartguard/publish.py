"""Writes ``schemas/`` (JSON Schema and XML Schema of every domain, the gateway's policy, the OpenAPI document) and
``docs/policy.md``.

``python -m heartguard.publish`` writes; with ``--check`` it only tells what is stale.
"""

import importlib
import json
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import openapi
from .endpoint import Endpoint
from .endpoints import Endpoints
from .negotiation import Format
from .policy import CALLERS, Audience, refusal
from .schema import document, domains, xsd
from .services import SERVICES, Service
from .settings import ROOT

FOLDER = ROOT / "schemas"

POLICY = """\
# Who may do what

Generated from the endpoints' own statements by `heartguard publish`: it is what the gateway enforces (from
[schemas/routes.json](../schemas/routes.json)) and, once more, each service. Every role acts within its own
organization; what is another's is a 404. `service` is for calls between services and never given to a person.

{tables}
`some` may, by what else the endpoint looks at: anybody registers as a user, where registration is open, and only an
admin registers others; `/media/objects/…` wants a link that was given out; `/gateway/metrics` is for the networks in
`METRICS_ALLOW`, and for admins from anywhere. On their own ports, inside the private network, the services' `/ready`
and `/metrics` are open.
"""


def publish(check: bool, root: Path = ROOT) -> int:
    """Write what is stale, or with ``check`` only name it. Returns the exit status: 1 where ``check`` found any."""
    files = published()
    stale = [name for name, content in files.items() if _content(root / name) != content]
    surplus = [f"schemas/{path.name}" for path in (root / "schemas").glob("*.*")]
    surplus = [name for name in surplus if name not in files]
    if check:
        for name in [*stale, *surplus]:
            print(f"{name} is stale: run `heartguard publish`")
        return 1 if stale or surplus else 0
    for name in stale:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(files[name])
    for name in surplus:
        (root / name).unlink()
    return 0


def published() -> dict[str, bytes]:
    """All that is generated, by its path in the project."""
    stated = [endpoint for service in SERVICES.values() for endpoint in endpoints_of(service)]
    files = {
        "schemas/routes.json": _json({"routes": routes()}),
        "schemas/openapi.json": _json(openapi.document(stated)),
        "docs/policy.md": policy().encode(),
    }
    for domain in domains():
        files[f"schemas/{domain}.schema.json"] = _json(document(domain))
        files[f"schemas/{domain}.xsd"] = xsd(domain)
    return files


def policy() -> str:
    """A table for each service: route by role."""
    tables = []
    for service in SERVICES.values():
        rows = [
            f"| `{e.method} {e.path}` | {' | '.join(map(partial(_verdict, e), CALLERS))} |"
            for e in endpoints_of(service)
        ]
        head = f"| {service.name} | {' | '.join(role or 'nobody' for role in CALLERS)} |\n|---|{'---|' * len(CALLERS)}"
        tables.append("\n".join([head, *rows, ""]))
    return POLICY.format(tables="\n".join(tables))


def _verdict(endpoint: Endpoint, role: str | None) -> str:
    refused = refusal(endpoint.audience, role)
    if refused:
        return str(refused().status)
    # Open to all by its audience, and yet it refuses: it looks at more than the role.
    return "some" if endpoint.audience is Audience.PUBLIC and 403 in endpoint.errors else "yes"


def routes() -> list[dict[str, Any]]:
    """What the gateway must know of every endpoint behind it, service by service, in the order they are stated."""
    return [
        _route(endpoint)
        for service in SERVICES.values()
        if service.name != "gateway"
        for endpoint in endpoints_of(service)
    ]


def endpoints_of(service: Service) -> Endpoints | tuple[()]:
    """The endpoints that a service states in its ``views``; none where the service is not installed.

    Looked up by name: the kit knows no service.
    """
    views = f"{service.package}.views"
    if not _is_installed(views):
        return ()
    endpoints: Endpoints = importlib.import_module(views).endpoints
    return endpoints


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _route(endpoint: Endpoint) -> dict[str, Any]:
    formats = [fmt.value for fmt in Format] if endpoint.body else []
    return {
        "service": endpoint.service.name,
        "name": endpoint.name,
        "method": endpoint.method,
        "path": endpoint.path,
        "audience": endpoint.audience.value,
        "optional_caller": endpoint.optional_caller,
        "token_scheme": endpoint.token_scheme,
        "influx_errors": endpoint.influx_errors,
        "max_body": endpoint.max_body if endpoint.body else 0,
        "upload": endpoint.upload,
        "audit": endpoint.audit,
        "request": endpoint.body.__name__ if endpoint.body else None,
        "answer": endpoint.answer.__name__ if endpoint.answer else None,
        "media_types": [*formats, *endpoint.also, *endpoint.accepts],
    }


def _json(content: Any) -> bytes:
    """Characters stand for themselves: readers of YAML, as which many tools take the document, refuse a ``\\ud800``."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


if __name__ == "__main__":
    sys.exit(publish(check="--check" in sys.argv[1:]))
