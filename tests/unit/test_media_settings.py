"""What the media service reads from its environment."""

import json
from pathlib import Path

import pytest

from heartguard.settings import SettingsError, load
from services.media.src.settings import Settings

NEEDED = {"JWT_SECRET": "j" * 32, "DATABASE_URL": "postgresql://x@y/z", "REDIS_URL": "redis://x"}


@pytest.fixture
def account(tmp_path: Path) -> str:
    file = tmp_path / "key.json"
    file.write_text(json.dumps({"client_email": "a", "private_key": "b", "project_id": "c", "token_uri": "d"}))
    return str(file)


def test_defaults(tmp_path: Path) -> None:
    settings = load(Settings, {**NEEDED, "HEARTGUARD_DATA": str(tmp_path)})
    assert (settings.gcs_key, settings.bucket, settings.folder) == (None, "heartguard-system", tmp_path / "media")
    assert (settings.max_upload, settings.signed_url_ttl) == (10 * 1024 * 1024, 900)


def test_where_there_are_credentials_they_are_used_unless_told_otherwise(account: str) -> None:
    given = {**NEEDED, "GOOGLE_APPLICATION_CREDENTIALS": account}
    assert load(Settings, given).gcs_key == Path(account)
    assert load(Settings, {**given, "MEDIA_BACKEND": "gcs"}).gcs_key == Path(account)
    assert load(Settings, {**given, "MEDIA_BACKEND": "local"}).gcs_key is None


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"type": "authorized_user"}'])
def test_credentials_that_are_none(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "key.json"
    if content is not None:
        file.write_text(content)
    given = {**NEEDED, "GOOGLE_APPLICATION_CREDENTIALS": str(file)}
    with pytest.raises(SettingsError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        load(Settings, given)
    assert load(Settings, {**given, "MEDIA_BACKEND": "local"}).gcs_key is None


def test_google_cloud_storage_needs_credentials() -> None:
    with pytest.raises(SettingsError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        load(Settings, {**NEEDED, "MEDIA_BACKEND": "gcs"})


@pytest.mark.parametrize("name", ["MEDIA_BACKEND", "MAX_UPLOAD_MB", "SIGNED_URL_TTL", "STORAGE_EMULATOR_HOST"])
def test_wrong_ones_are_named(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load(Settings, {**NEEDED, name: "0"})
