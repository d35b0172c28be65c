"""Settings of the organization service."""

from dataclasses import dataclass

from heartguard.settings import AuditSettings, DatabaseSettings, ServiceSettings


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings, DatabaseSettings, AuditSettings):
    """What the service needs."""
