"""Whether the gateway can do its work: all of it, some of it, or none."""

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from heartguard.models.common import Ready
from heartguard.pipeline import Pipeline
from heartguard.probe import CHECK_TIMEOUT, Checks, Probe

from .bridge import Bridge
from .upstream import Upstream

BELIEVED = 1.0
"""Seconds that an answer is given again: the route is public, and each look asks every service."""

PATIENCE = CHECK_TIMEOUT * 0.9
VALKEY = "valkey"


class Readiness:
    """Asks Valkey and each service. Thread-safe."""

    def __init__(self, valkey: Pipeline, upstreams: Mapping[str, Upstream], bridge: Bridge) -> None:
        self._valkey = valkey
        self._upstreams = upstreams
        self._bridge = bridge
        self._lock = threading.Lock()
        self._known: tuple[Ready | None, float] = (None, 0.0)

    def checks(self) -> Checks:
        """What ``/gateway/ready`` asks; each gives up a little before the probe would."""
        asked: dict[str, Callable[[], object]] = {
            VALKEY: lambda: self._bridge.wait(self._valkey.ping(), PATIENCE),
        }
        asked.update((name, partial(self._check, upstream)) for name, upstream in self._upstreams.items())
        return asked

    def _check(self, upstream: Upstream) -> None:
        self._bridge.wait(upstream.check(PATIENCE), PATIENCE)

    def now(self, probe: Probe) -> Ready:
        """The state, at most :data:`BELIEVED` seconds old."""
        with self._lock:
            ready, until = self._known
            if ready is None or time.monotonic() >= until:
                ready = judged(probe.ready())
                self._known = (ready, time.monotonic() + BELIEVED)
            return ready


def judged(found: Ready) -> Ready:
    """The verdict on the checks.

    ``unavailable`` where no service answers, or where neither Valkey nor auth does: then no token can
    be let through. ``degraded`` where anything is away but something can still be served.
    """
    down = {check.name for check in found.checks if check.status == "failed"}
    services = {check.name for check in found.checks} - {VALKEY}
    if services <= down or {VALKEY, "auth"} <= down:
        return Ready(status="unavailable", checks=found.checks)
    return Ready(status="degraded" if down else "ready", checks=found.checks)
