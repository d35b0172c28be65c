"""What the auth service reads from the environment."""

from dataclasses import dataclass

import msgspec

from heartguard.models.base import Email
from heartguard.settings import (
    AuditSettings,
    DatabaseSettings,
    Rate,
    RefreshSettings,
    ServiceSettings,
    boolean,
    choice,
    integer,
    rate,
    text,
    variable,
)

from . import passwords


def email(value: str) -> str:
    """An address, in lower case as all of them are kept."""
    try:
        return msgspec.convert(value, Email).lower()
    except msgspec.ValidationError:
        raise ValueError("should be an e-mail address such as admin@heartguard.io") from None


def password(value: str) -> str:
    if problem := passwords.problem(value):
        raise ValueError(problem)
    return value


@dataclass(frozen=True, kw_only=True)
class Settings(RefreshSettings, ServiceSettings, DatabaseSettings, AuditSettings):
    """Times are in seconds."""

    refresh_grace_seconds: int = variable("REFRESH_GRACE_SECONDS", integer(0, 300), "10")
    bootstrap_admin_email: str = variable("BOOTSTRAP_ADMIN_EMAIL", email, "admin@heartguard.io")
    bootstrap_admin_password: str = variable("BOOTSTRAP_ADMIN_PASSWORD", password)
    default_org_name: str = variable("DEFAULT_ORG_NAME", text, "HeartGuard")
    registration: str = variable("REGISTRATION", choice("open", "closed"), "open")
    org_signup: bool = variable("ORG_SIGNUP", boolean, "false")
    auth_rate_limit: Rate = variable("AUTH_RATE_LIMIT", rate, "10/min")
