"""Settings of the time-series service."""

from dataclasses import dataclass

from heartguard.settings import AuditSettings, ServiceSettings, SettingsError, choice, integer, text, url, variable


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """Where points are kept."""

    database_url: str | None = variable("DATABASE_URL", url("postgresql", "postgres"), optional=True)
    influx_url: str | None = variable("INFLUX_URL", url("http", "https"), optional=True)
    influx_token: str | None = variable("INFLUX_TOKEN", text, optional=True)
    influx_org: str | None = variable("INFLUX_ORG", text, optional=True)

    def missing(self, backend: str) -> list[str]:
        """The names of variables that a backend needs and that are not set."""
        needed = {
            "postgres": {"DATABASE_URL": self.database_url},
            "influx": {"INFLUX_URL": self.influx_url, "INFLUX_TOKEN": self.influx_token, "INFLUX_ORG": self.influx_org},
        }
        return [name for name, value in needed[backend].items() if value is None]


@dataclass(frozen=True, kw_only=True)
class Settings(StoreSettings, ServiceSettings, AuditSettings):
    """What the service needs; ``sweep_seconds`` lie between two clearings of expired points."""

    chosen_backend: str | None = variable("TIMESERIES_BACKEND", choice("postgres", "influx"), optional=True)
    sweep_seconds: int = variable("TIMESERIES_SWEEP_SECONDS", integer(1, 86_400), "60")

    @property
    def backend(self) -> str:
        """The one that was chosen, or else ``influx`` where there is one to be found."""
        return self.chosen_backend or ("influx" if self.influx_url else "postgres")

    def __post_init__(self) -> None:
        if missing := self.missing(self.backend):
            lines = [f"  {name}: is needed with TIMESERIES_BACKEND={self.backend} and not set" for name in missing]
            raise SettingsError("\n".join(["Settings are missing or wrong (see .env.example):", *lines]))
