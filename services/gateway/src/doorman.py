"""Who may read the gateway's metrics."""

from wsgiref.types import WSGIEnvironment

from heartguard.policy import Audience
from heartguard.settings import Network

from .addresses import Addresses, is_within
from .guard import Guard
from .visit import Visit


class Doorman:
    """Lets callers from the allowed networks in, and admins from anywhere."""

    def __init__(self, guard: Guard, addresses: Addresses, allowed: tuple[Network, ...]) -> None:
        self._guard = guard
        self._addresses = addresses
        self._allowed = allowed

    def admit(self, environ: WSGIEnvironment) -> None:
        """Raises 429, 401, 403 or 503. Behind a trusted proxy the forwarded address is the one that counts."""
        visit = Visit(environ, self._addresses)
        if not is_within(visit.address.ip, self._allowed):
            self._guard.admit(visit, Audience.ADMIN)
