"""Who may read the gateway's metrics."""

from heartguard.policy import Audience
from heartguard.settings import Network

from .addresses import is_within
from .bridge import Bridge
from .guard import Guard
from .visit import Visit

PATIENCE = 60.0
"""Seconds; longer than all that the guard waits for may take together."""


class Doorman:
    """Lets callers from the allowed networks in, and admins from anywhere. Thread-safe."""

    def __init__(self, guard: Guard, bridge: Bridge, allowed: tuple[Network, ...]) -> None:
        self._guard = guard
        self._bridge = bridge
        self._allowed = allowed

    def admit(self, visit: Visit) -> None:
        """Raises 429, 401, 403 or 503. Behind a trusted proxy the forwarded address is the one that counts."""
        if not is_within(visit.address.ip, self._allowed):
            self._bridge.wait(self._guard.admit(visit, Audience.ADMIN), PATIENCE)
