"""What the media service reads from the environment."""

import json
from dataclasses import dataclass
from pathlib import Path

from heartguard.settings import (
    DatabaseSettings,
    ServiceSettings,
    SettingsError,
    UploadSettings,
    choice,
    integer,
    path,
    text,
    url,
    variable,
)


def service_account(value: str) -> Path:
    """The file of a service account's key."""
    file = path(value)
    try:
        said = json.loads(file.read_bytes())
    except (OSError, ValueError):
        said = None
    if not isinstance(said, dict) or not {"client_email", "private_key", "project_id", "token_uri"} <= said.keys():
        raise ValueError("should name a readable file with the key of a service account, in JSON")
    return file


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings, DatabaseSettings, UploadSettings):
    """Times are in seconds."""

    backend: str | None = variable("MEDIA_BACKEND", choice("local", "gcs"), optional=True)
    """None means: the one that there are credentials for."""
    bucket: str = variable("GCS_BUCKET", text, "heartguard-system")
    credentials: Path | None = variable("GOOGLE_APPLICATION_CREDENTIALS", service_account, optional=True)
    endpoint: str | None = variable("STORAGE_EMULATOR_HOST", url("http", "https"), optional=True)
    """Where another server speaks Google Cloud Storage's protocol."""
    data: Path = variable("HEARTGUARD_DATA", path, ".heartguard")
    signed_url_ttl: int = variable("SIGNED_URL_TTL", integer(1, 604_800), "900")
    sweep_seconds: int = variable("MEDIA_SWEEP_SECONDS", integer(1, 86_400), "60")
    threads: int = variable("THREADS", integer(1, 64), "4")

    def __post_init__(self) -> None:
        if self.backend == "gcs" and self.credentials is None:
            raise SettingsError("GOOGLE_APPLICATION_CREDENTIALS: is needed with MEDIA_BACKEND=gcs (see .env.example)")

    @property
    def is_local(self) -> bool:
        """Whether files are kept in :attr:`folder`."""
        return self.backend == "local" or self.credentials is None

    @property
    def folder(self) -> Path:
        """Where files lie while they come in, and with the local store for good."""
        return self.data / "media"
