"""Settings of the time-series service."""

from dataclasses import dataclass

from heartguard.settings import AuditSettings, ServiceSettings, SettingsError, choice, integer, text, url, variable
from heartguard.timestamps import SECOND, parse_time

from .times import MAX_AHEAD, TimeBounds


def moment(value: str) -> int:
    """Nanoseconds since the epoch."""
    try:
        return parse_time(value if "T" in value else f"{value}T00:00:00Z")
    except ValueError:
        raise ValueError("should be a date such as 1970-01-01, or a time in UTC such as 2020-06-01T12:00:00Z") from None


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """Where points are kept."""

    database_url: str | None = variable("DATABASE_URL", url("postgresql", "postgres"), optional=True)
    influx_url: str | None = variable("INFLUX_URL", url("http", "https"), optional=True)
    influx_token: str | None = variable("INFLUX_TOKEN", text, optional=True)
    influx_org: str | None = variable("INFLUX_ORG", text, optional=True)
    influx_max_files: int | None = variable("INFLUX_MAX_FILES", integer(1, 2**31), optional=True)
    earliest: int = variable("TIMESERIES_EARLIEST", moment, "1970-01-01")
    ahead_seconds: int = variable("TIMESERIES_AHEAD_SECONDS", integer(0, MAX_AHEAD), "86400")

    @property
    def bounds(self) -> TimeBounds:
        return TimeBounds(earliest=self.earliest, ahead=self.ahead_seconds * SECOND)

    def missing(self, backend: str) -> list[str]:
        """The names of variables that a backend needs and that are not set."""
        needed = {
            "postgres": {"DATABASE_URL": self.database_url},
            "influx": {"INFLUX_URL": self.influx_url, "INFLUX_TOKEN": self.influx_token, "INFLUX_ORG": self.influx_org},
        }
        return [name for name, value in needed[backend].items() if value is None]


@dataclass(frozen=True, kw_only=True)
class Settings(StoreSettings, ServiceSettings, AuditSettings):
    """What the service needs; ``max_buckets`` and ``max_queries`` (at once, in a worker) are per organization."""

    chosen_backend: str | None = variable("TIMESERIES_BACKEND", choice("postgres", "influx"), optional=True)
    max_buckets: int = variable("TIMESERIES_MAX_BUCKETS", integer(1, 200), "10")
    max_queries: int = variable("TIMESERIES_MAX_QUERIES", integer(1, 64), "2")
    sweep_seconds: int = variable("TIMESERIES_SWEEP_SECONDS", integer(1, 86_400), "60")

    @property
    def backend(self) -> str:
        """The one that was chosen, or else ``influx`` where there is one to be found."""
        return self.chosen_backend or ("influx" if self.influx_url else "postgres")

    def check_servers(self) -> None:
        if self.backend == "influx":
            from .influx_version import refuse_other_versions  # it speaks HTTP, which no worker's parent needs to know

            assert self.influx_url is not None
            assert self.influx_token is not None
            refuse_other_versions(self.influx_url, self.influx_token)

    def __post_init__(self) -> None:
        if missing := self.missing(self.backend):
            lines = [f"  {name}: is needed with TIMESERIES_BACKEND={self.backend} and not set" for name in missing]
            raise SettingsError("\n".join(["Settings are missing or wrong (see .env.example):", *lines]))
