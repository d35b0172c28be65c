"""Who may do what: the audiences an endpoint can have, and the one rule that judges them."""

from enum import StrEnum

from .errors import Forbidden, Unauthorized
from .tokens import Claims


class Audience(StrEnum):
    """The letters are those of the contract; INTERNAL is open on the service's own port and X at the gateway."""

    PUBLIC = "P"
    SIGNED_IN = "A"
    MANAGER = "M"
    ADMIN = "X"
    SERVICE = "S"
    INTERNAL = "I"


_ROLES = {
    Audience.SIGNED_IN: frozenset({"user", "manager", "admin"}),
    Audience.MANAGER: frozenset({"manager", "admin"}),
    Audience.ADMIN: frozenset({"admin"}),
    Audience.SERVICE: frozenset({"service", "admin"}),
    Audience.INTERNAL: frozenset({"admin"}),
}


CALLERS = (None, "user", "manager", "admin", "service")
"""The roles there are, None being nobody."""


def refusal(audience: Audience, role: str | None) -> type[Unauthorized | Forbidden] | None:
    """Why somebody of that role may not. Public is public; all else needs a caller, in a role that is listed."""
    if audience is Audience.PUBLIC:
        return None
    if role is None:
        return Unauthorized
    return None if role in _ROLES[audience] else Forbidden


def authorize(audience: Audience, caller: Claims | None) -> None:
    """Raise unless the caller may."""
    if refused := refusal(audience, caller.role if caller else None):
        raise refused
