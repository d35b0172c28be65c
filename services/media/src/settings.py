"""What the media service reads from the environment."""

import json
from dataclasses import dataclass
from pathlib import Path

from heartguard.settings import (
    AuditSettings,
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


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings, DatabaseSettings, UploadSettings, AuditSettings):
    """Times are in seconds."""

    backend: str | None = variable("MEDIA_BACKEND", choice("local", "gcs"), optional=True)
    """None means: the one that there are credentials for."""
    bucket: str = variable("GCS_BUCKET", text, "heartguard-system")
    credentials: Path | None = variable("GOOGLE_APPLICATION_CREDENTIALS", path, optional=True)
    endpoint: str | None = variable("STORAGE_EMULATOR_HOST", url("http", "https"), optional=True)
    """Where another server speaks Google Cloud Storage's protocol."""
    data: Path = variable("HEARTGUARD_DATA", path, ".heartguard")
    signed_url_ttl: int = variable("SIGNED_URL_TTL", integer(1, 604_800), "900")
    sweep_seconds: int = variable("MEDIA_SWEEP_SECONDS", integer(1, 86_400), "60")
    threads: int = variable("THREADS", integer(1, 64), "4")

    def __post_init__(self) -> None:
        if self.backend == "gcs" and self.credentials is None:
            raise SettingsError("GOOGLE_APPLICATION_CREDENTIALS: is needed with MEDIA_BACKEND=gcs (see .env.example)")
        if self.gcs_key is not None and not is_service_account(self.gcs_key):
            raise SettingsError(
                "GOOGLE_APPLICATION_CREDENTIALS: should name a readable file with a service account's key, in JSON."
                " To keep files in HEARTGUARD_DATA instead, set MEDIA_BACKEND=local."
            )

    @property
    def gcs_key(self) -> Path | None:
        """The key for Google Cloud Storage; None where files are kept in :attr:`folder`."""
        return None if self.backend == "local" else self.credentials

    @property
    def folder(self) -> Path:
        """Where files lie while they come in, and with the local store for good."""
        return self.data / "media"


def is_service_account(file: Path) -> bool:
    """Whether the file holds a service account's key, with which links can be signed."""
    try:
        said = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and {"client_email", "private_key", "project_id", "token_uri"} <= said.keys()
