"""The gateway's own endpoints."""

from flask import Response, request

from heartguard import metrics
from heartguard.endpoint import Reply
from heartguard.endpoints import Endpoints
from heartguard.models.common import Health, Ready
from heartguard.policy import Audience
from heartguard.probe import Probe

from .doorman import Doorman
from .own_pages import VISIT
from .pages import Pages
from .readiness import Readiness

endpoints = Endpoints("gateway")


@endpoints.get("/gateway/health", audience=Audience.PUBLIC)
def health(probe: Probe) -> Health:
    """The process lives."""
    return probe.health()


@endpoints.get("/gateway/ready", audience=Audience.PUBLIC, statuses=[503])
def ready(probe: Probe, readiness: Readiness) -> Reply[Ready]:
    """Whether Valkey and the services answer.

    503 only where the gateway can serve nothing at all; it is ``degraded`` where anything is away.
    """
    found = readiness.now(probe)
    return Reply(found, 503 if found.status == "unavailable" else 200)


@endpoints.get(
    "/gateway/metrics",
    audience=Audience.PUBLIC,
    produces=metrics.MEDIA_TYPE,
    errors=dict.fromkeys((401, 403, 429, 503), "Not from a network in `METRICS_ALLOW`, so an admin's token is needed"),
)
def expose(doorman: Doorman) -> Response:
    """Metrics in Prometheus's text format.

    For callers from the networks in ``METRICS_ALLOW``, and for admins from anywhere.
    """
    doorman.admit(request.environ[VISIT])
    body, media_type = metrics.exposition()
    return Response(body, content_type=media_type)


@endpoints.get("/gateway/openapi.json", audience=Audience.PUBLIC, produces="application/json", etag=True)
def openapi(pages: Pages) -> Response:
    """This document: all operations of all services, in OpenAPI 3.1."""
    return pages.openapi()


@endpoints.get("/gateway/docs", audience=Audience.PUBLIC, produces="text/html", etag=True)
def docs(pages: Pages) -> Response:
    """A page to read this document, and to try what it says."""
    return pages.page()
