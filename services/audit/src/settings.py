"""What the audit service reads from the environment."""

from dataclasses import dataclass

from heartguard.settings import AuditSettings, DatabaseSettings, ServiceSettings, SigningSettings


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings, DatabaseSettings, AuditSettings, SigningSettings):
    pass
