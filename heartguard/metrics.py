"""Prometheus metrics with bounded labels: a route's template, never its path."""

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Where the histograms of times are cut."""

MEDIA_TYPE = CONTENT_TYPE_LATEST.partition(";")[0]

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})

REQUESTS = Counter("heartguard_requests_total", "Requests answered.", ["service", "method", "route", "status"])
LATENCY = Histogram(
    "heartguard_request_seconds", "Time to answer a request.", ["service", "method", "route"], buckets=SECONDS
)
STORE = Histogram(
    "heartguard_store_seconds", "Time of one unit of work in a store.", ["service", "store"], buckets=SECONDS
)
READY = Gauge("heartguard_dependency_up", "Whether a dependency answered when last asked.", ["service", "dependency"])
AUDIT_SPOOLED = Counter("heartguard_audit_spooled_total", "Events put into the spool.", ["service"])
AUDIT_SPOOL_BYTES = Gauge("heartguard_audit_spool_bytes", "Bytes of events that wait in the spool.", ["service"])
AUDIT_WAITING = Gauge("heartguard_audit_stream_events", "Events in the stream, when last looked at.", ["service"])


def method_label(method: str) -> str:
    """The method, or ``other``: a client can invent methods without end."""
    return method if method in METHODS else "other"


def exposition() -> tuple[bytes, str]:
    """The metrics in Prometheus's text format, and its content type."""
    return generate_latest(), CONTENT_TYPE_LATEST
