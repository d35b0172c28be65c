"""The endpoints of one service, and how it states them."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from flask import Response

from . import metrics
from .endpoint import DEFAULT_MAX_BODY, Endpoint, Reader, Reply, View, signature
from .models.base import Request
from .models.common import Health, Ready
from .policy import Audience
from .probe import Probe
from .services import SERVICES
from .settings import UploadSettings, load


class Endpoints:
    """The endpoints of one service, in the order they are stated."""

    def __init__(self, service: str) -> None:
        self.service = SERVICES[service]
        self._stated: list[Endpoint] = []
        if service != "gateway":
            _state_operations(self)

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._stated)

    @property
    def influx_paths(self) -> frozenset[str]:
        """Where failures are told as InfluxDB tells them, too: these paths have no parameters."""
        return frozenset(endpoint.path for endpoint in self._stated if endpoint.influx_errors)

    def get(self, path: str, *, audience: Audience, **options: Any) -> Callable[[View], View]:
        return self._state("GET", path, audience, **options)

    def post(self, path: str, *, audience: Audience, **options: Any) -> Callable[[View], View]:
        return self._state("POST", path, audience, **options)

    def put(self, path: str, *, audience: Audience, **options: Any) -> Callable[[View], View]:
        return self._state("PUT", path, audience, **options)

    def delete(self, path: str, *, audience: Audience, **options: Any) -> Callable[[View], View]:
        return self._state("DELETE", path, audience, **options)

    def _state(
        self,
        method: str,
        path: str,
        audience: Audience,
        *,
        status: int | None = None,
        audit: str | None = None,
        etag: bool = False,
        max_body: int = DEFAULT_MAX_BODY,
        also: Mapping[str, Reader] | None = None,
        produces: str | None = None,
        token_scheme: bool = False,
        influx_errors: bool = False,
        statuses: Collection[int] = (),
        errors: Mapping[int, str] | None = None,
        upload: type[Request] | None = None,
        accepts: Mapping[str, Any] | None = None,
    ) -> Callable[[View], View]:
        """``also`` reads further media types into the request type; ``max_body`` is in bytes, after unpacking.

        ``upload`` is the request type of a view that reads the body itself (an :class:`Incoming`), of up to
        ``UploadSettings.max_upload_body`` bytes; ``accepts`` are the further media types that it reads, each
        with its JSON Schema.

        ``etag`` is for a single resource: its answer carries an ETag, and ``If-None-Match`` can make it a 304. A
        ``PUT`` of one has to take an :class:`IfMatch`.
        ``produces`` is the one media type of a ready Flask response (``*/*`` where each has its own); with
        ``token_scheme``, ``Authorization`` may also say ``Token``; with ``influx_errors``, failures have InfluxDB's
        ``code`` and ``message`` too. ``statuses`` are those, beside ``status``, that the answer can come with;
        ``errors`` says of failures of the endpoint's own when they happen.
        """

        def decorate(view: View) -> View:
            said = signature(view)
            self._stated.append(
                Endpoint(
                    service=self.service,
                    method=method,
                    path=path,
                    audience=audience,
                    view=view,
                    name=view.__name__,
                    body=upload or said.body,
                    query=said.query,
                    answer=said.answer,
                    optional_caller=said.optional_caller,
                    status=status or said.status,
                    audit=audit,
                    etag=etag,
                    max_body=load(UploadSettings, {}).max_upload_body if upload else max_body,
                    also=also or {},
                    produces=produces,
                    token_scheme=token_scheme,
                    influx_errors=influx_errors,
                    statuses=statuses,
                    errors=errors or {},
                    accepts=accepts or {},
                    upload=upload is not None,
                )
            )
            return view

        return decorate


def _state_operations(endpoints: Endpoints) -> None:
    """``/health``, ``/ready`` and ``/metrics`` under the service's path."""
    path = endpoints.service.path

    @endpoints.get(f"{path}/health", audience=Audience.PUBLIC)
    def health(probe: Probe) -> Health:
        """The process lives."""
        return probe.health()

    @endpoints.get(f"{path}/ready", audience=Audience.INTERNAL, statuses=[503])
    def ready(probe: Probe) -> Reply[Ready]:
        """Whether everything that the service needs answers.

        503 where it cannot do its work; ``degraded`` where it can, but something is away.
        """
        found = probe.ready()
        return Reply(found, 503 if found.status == "unavailable" else 200)

    @endpoints.get(f"{path}/metrics", audience=Audience.INTERNAL, produces=metrics.MEDIA_TYPE)
    def expose() -> Response:
        """Metrics in Prometheus's text format."""
        body, media_type = metrics.exposition()
        return Response(body, content_type=media_type)
