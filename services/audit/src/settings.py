"""What the audit service reads from the environment."""

from dataclasses import dataclass

from heartguard.settings import AuditSettings, DatabaseSettings, ServiceSettings, secret, variable


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings, DatabaseSettings, AuditSettings):
    """Any secret will do for a signing key; the key proper is derived from it."""

    signing_key: bytes = variable("AUDIT_SIGNING_KEY", secret(32))
