"""Settings of the user service."""

from dataclasses import dataclass

from heartguard.settings import DatabaseSettings, ServiceSettings, ValkeySettings


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings, DatabaseSettings, ValkeySettings):
    """What the service needs."""
