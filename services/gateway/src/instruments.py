"""The gateway's own Prometheus metrics; those of every service are in the kit."""

from prometheus_client import Counter, Gauge, Histogram

from heartguard.metrics import SECONDS

CLOSED, HALF_OPEN, OPEN = 0, 1, 2

CIRCUIT = Gauge("heartguard_gateway_circuit", "0 closed, 1 half open, 2 open.", ["upstream"])
UPSTREAM = Histogram(
    "heartguard_gateway_upstream_seconds",
    "Time until a service's answer had begun.",
    ["upstream"],
    buckets=SECONDS,
)
UPSTREAM_FAILURES = Counter("heartguard_gateway_upstream_failures_total", "Failures to get an answer.", ["upstream"])
LIMITED = Counter("heartguard_gateway_limited_total", "Requests refused with 429.", ["policy"])
INTROSPECTIONS = Counter(
    "heartguard_gateway_introspections_total", "Times the auth service was asked about a token.", ["outcome"]
)
LINES_LOST = Counter("heartguard_gateway_lines_lost_total", "Times that the log could not be written.")
