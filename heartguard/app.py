"""The application factory that all services share."""

import time
from collections.abc import Sequence, Set
from typing import Any

import structlog
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from . import audit, logs, metrics
from .codec import encode_error
from .context import request_id, trace_id
from .dispatch import bind
from .endpoints import Endpoints
from .errors import ServiceError, influx_code
from .models.common import Error
from .negotiation import Format, negotiate
from .paths import shown
from .probe import Checks, Probe
from .settings import ServiceSettings
from .tokens import Tokens


class Accepted:
    """The format that the client accepts. Asking for none that there is becomes a 406, once it matters."""

    def __init__(self, accept: str | None) -> None:
        self._found = negotiate(accept)

    @property
    def value(self) -> Format:
        return self._found or Format.JSON

    def require(self) -> None:
        if self._found is None:
            raise ServiceError(406)


def create_service_app(
    endpoints: Endpoints,
    settings: ServiceSettings,
    tokens: Tokens,
    *,
    resources: Sequence[object] = (),
    checks: Checks | None = None,
    dispensable: Checks | None = None,
    trail: audit.Sink | None = None,
) -> Flask:
    """A Flask application that answers ``endpoints`` and the service's health, readiness and metrics.

    ``resources`` are what views may ask for by type; ``checks`` are the dependencies that ``/ready`` asks,
    ``dispensable`` those without which the service is only degraded. ``trail`` takes the events of endpoints that
    state any.
    """
    service = endpoints.service
    logs.configure(service.name, settings.log_level)
    app = Flask(service.name, static_folder=None)
    probe = Probe(service.name, checks or {}, dispensable)
    provided: dict[type, Any] = {type(resource): resource for resource in [*resources, probe]}
    if trail:
        audit.install(app, trail)
    bind(app, endpoints, tokens, provided)
    identify_requests(app, service.name)
    refuse_chunks(app)
    handle_errors(app, service.prefix, endpoints.influx_paths)
    return app


def identify_requests(app: Flask, service: str) -> None:
    """Give each request its ids and format, and see it off with headers, a metric and a log line."""

    @app.before_request
    def begin() -> None:
        g.begun = time.perf_counter()
        g.request_id = request_id(request.headers.get("X-Request-ID"))
        g.format = Accepted(request.headers.get("Accept"))
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=g.request_id)
        if trace := trace_id(request.headers.get("traceparent")):
            structlog.contextvars.bind_contextvars(trace_id=trace)

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
        response.vary.add("Accept")
        seconds = time.perf_counter() - g.begun
        rule = str(request.url_rule) if request.url_rule else None
        route = rule or "unknown"
        method = metrics.method_label(request.method)
        metrics.REQUESTS.labels(service, method, route, response.status_code).inc()
        metrics.LATENCY.labels(service, method, route).observe(seconds)
        caller = g.get("caller")
        known = {"user_id": caller.user_id, "org_id": caller.org_id} if caller else {}
        logs.log.info(
            "request",
            method=request.method,
            path=shown(request.path, rule),
            status=response.status_code,
            latency_ms=round(seconds * 1000, 3),
            **known,
        )
        return response


def refuse_chunks(app: Flask) -> None:
    """Answer 411 where the body comes in chunks: one that was cut short would look complete."""

    @app.before_request
    def refuse() -> None:
        if "Transfer-Encoding" in request.headers:
            raise ServiceError(411)


def handle_errors(app: Flask, prefix: str, influx_paths: Set[str] = frozenset()) -> None:
    """Turn every failure, foreseen or not, into the contract's error; at ``influx_paths`` it is InfluxDB's as well."""

    def respond(error: ServiceError) -> Response:
        body: Error = error.body(prefix, g.request_id)
        fmt: Format = g.format.value
        content = encode_error(body, fmt, influx_code(error.status) if request.path in influx_paths else None)
        return Response(content, status=error.status, headers=error.headers, content_type=fmt.value)

    @app.errorhandler(ServiceError)
    def foreseen(error: ServiceError) -> Response:
        if error.status >= 500:
            logs.log.error("failure", status=error.status, exc_info=error)
        return respond(error)

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Response:
        headers = {name: value for name, value in error.get_headers() if name in {"Allow", "Retry-After"}}
        return respond(ServiceError(error.code or 500, headers=headers))

    @app.errorhandler(Exception)
    def unforeseen(error: Exception) -> Response:
        logs.log.error("failure", status=500, exc_info=error)
        return respond(ServiceError(500))
