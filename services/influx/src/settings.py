"""Settings of the time-series service."""

from dataclasses import dataclass

from heartguard.settings import AuditSettings, DatabaseSettings, ServiceSettings, choice, integer, variable


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings, DatabaseSettings, AuditSettings):
    """What the service needs; ``sweep_seconds`` lie between two clearings of expired points."""

    backend: str = variable("TIMESERIES_BACKEND", choice("postgres"), "postgres")
    sweep_seconds: int = variable("TIMESERIES_SWEEP_SECONDS", integer(1, 86_400), "60")
