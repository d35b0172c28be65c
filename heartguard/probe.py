"""Health and readiness."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError

from . import __version__, metrics
from .logs import log
from .models.common import Check, Health, Ready

CHECK_TIMEOUT = 2.0
"""Seconds that a dependency has to answer ``/ready``."""

Checks = Mapping[str, Callable[[], object]]


class Probe:
    """Tells whether the process lives, and whether its dependencies answer.

    Without any of ``checks`` the service is unavailable, without ``dispensable`` ones just degraded.
    """

    def __init__(self, service: str, checks: Checks, dispensable: Checks | None = None) -> None:
        self.service = service
        self._needed = frozenset(checks)
        self._checks = {**checks, **(dispensable or {})}
        self._started = time.monotonic()
        self._pool = ThreadPoolExecutor(max_workers=max(1, 2 * len(self._checks)), thread_name_prefix="ready")

    def health(self) -> Health:
        uptime = round(time.monotonic() - self._started, 3)
        return Health(status="ok", service=self.service, version=__version__, uptime_seconds=uptime)

    def ready(self) -> Ready:
        """Ask every dependency at once; each has :data:`CHECK_TIMEOUT` to answer."""
        begun = time.monotonic()
        asked = {name: self._pool.submit(self._timed, check) for name, check in self._checks.items()}
        found: list[Check] = []
        for name, future in asked.items():
            try:
                ok, seconds = future.result(max(0.0, begun + CHECK_TIMEOUT - time.monotonic()))
            except FutureTimeoutError:
                future.cancel()
                ok, seconds = False, CHECK_TIMEOUT
            metrics.READY.labels(self.service, name).set(ok)
            found.append(Check(name=name, status="ok" if ok else "failed", latency_ms=round(seconds * 1000, 3)))
        down = {check.name for check in found if check.status == "failed"}
        return Ready(status="unavailable" if down & self._needed else "degraded" if down else "ready", checks=found)

    def _timed(self, check: Callable[[], object]) -> tuple[bool, float]:
        begun = time.monotonic()
        try:
            check()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with a dependency means that it is not ready
            log.warning("dependency", error=repr(error))
            return False, time.monotonic() - begun
        return True, time.monotonic() - begun
