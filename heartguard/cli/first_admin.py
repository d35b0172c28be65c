"""Whom a first start has made the stack's admin."""

from dataclasses import dataclass

from ..local.dotenv import ADMIN_EMAIL
from ..settings import text, variable


@dataclass(frozen=True, kw_only=True)
class FirstAdmin:
    """What the environment and ``.env`` say; no password where nothing has started yet."""

    admin_email: str = variable("BOOTSTRAP_ADMIN_EMAIL", text, ADMIN_EMAIL)
    admin_password: str | None = variable("BOOTSTRAP_ADMIN_PASSWORD", text, optional=True)
