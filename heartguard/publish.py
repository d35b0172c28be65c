"""Writes ``schemas/``: JSON Schema and XML Schema of every domain, the gateway's policy, and the OpenAPI document.

``python -m heartguard.publish`` writes; with ``--check`` it only tells what is stale.
"""

import importlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import openapi
from .endpoint import Endpoint, Endpoints
from .negotiation import Format
from .schema import document, domains, xsd
from .services import SERVICES, Service
from .settings import ROOT

FOLDER = ROOT / "schemas"


def publish(check: bool, folder: Path = FOLDER) -> int:
    """Write what is stale, or with ``check`` only name it. Returns the exit status: 1 where ``check`` found any."""
    files = published()
    stale = [name for name, content in files.items() if _content(folder / name) != content]
    surplus = [path.name for path in folder.glob("*.*") if path.name not in files]
    if check:
        for name in [*stale, *surplus]:
            print(f"{folder.name}/{name} is stale: run `heartguard publish`")
        return 1 if stale or surplus else 0
    folder.mkdir(exist_ok=True)
    for name in stale:
        (folder / name).write_bytes(files[name])
    for name in surplus:
        (folder / name).unlink()
    return 0


def published() -> dict[str, bytes]:
    """The files of ``schemas/``, by name."""
    stated = [endpoint for service in SERVICES.values() for endpoint in endpoints_of(service)]
    files = {"routes.json": _json({"routes": routes()}), "openapi.json": _json(openapi.document(stated))}
    for domain in domains():
        files[f"{domain}.schema.json"] = _json(document(domain))
        files[f"{domain}.xsd"] = xsd(domain)
    return files


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
        "max_body": endpoint.max_body if endpoint.body else 0,
        "upload": endpoint.upload,
        "audit": endpoint.audit,
        "request": endpoint.body.__name__ if endpoint.body else None,
        "answer": endpoint.answer.__name__ if endpoint.answer else None,
        "media_types": [*formats, *endpoint.also, *endpoint.accepts],
    }


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


if __name__ == "__main__":
    sys.exit(publish(check="--check" in sys.argv[1:]))
