"""What the media service reads from the environment."""

from dataclasses import dataclass
from pathlib import Path

from heartguard.settings import (
    DatabaseSettings,
    ServiceSettings,
    UploadSettings,
    choice,
    integer,
    path,
    text,
    variable,
)


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings, DatabaseSettings, UploadSettings):
    """Times are in seconds. ``backend`` None means: the one that there are credentials for."""

    backend: str | None = variable("MEDIA_BACKEND", choice("local", "gcs"), optional=True)
    bucket: str = variable("GCS_BUCKET", text, "heartguard-system")
    credentials: Path | None = variable("GOOGLE_APPLICATION_CREDENTIALS", path, optional=True)
    data: Path = variable("HEARTGUARD_DATA", path, ".heartguard")
    signed_url_ttl: int = variable("SIGNED_URL_TTL", integer(1, 604_800), "900")
    sweep_seconds: int = variable("MEDIA_SWEEP_SECONDS", integer(1, 86_400), "60")
    threads: int = variable("THREADS", integer(1, 64), "4")

    @property
    def folder(self) -> Path:
        """Where files lie while they come in, and with the local store for good."""
        return self.data / "media"
