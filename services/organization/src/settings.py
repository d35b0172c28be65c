"""Settings of the organization service."""

from dataclasses import dataclass

from heartguard.settings import DatabaseSettings, ServiceSettings


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings, DatabaseSettings):
    """What the service needs."""
