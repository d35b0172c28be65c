"""The embedded Valkey: closed to others, and remembering."""

import stat
from pathlib import Path

import pytest
import redis

from heartguard.local.errors import SetupError
from heartguard.local.files import private_folder
from heartguard.local.server import Running
from heartguard.local.valkey import SOCKET, Valkey


@pytest.fixture
def valkey(short_folder: Path) -> Valkey:
    return Valkey(short_folder / "valkey", private_folder(short_folder / "secrets"))


def test_what_it_was_told_survives_a_restart(valkey: Valkey) -> None:
    for found in (None, b"42"):
        running = Running(valkey)
        try:
            with redis.Redis.from_url(valkey.url) as client:
                assert client.get("answer") == found
                client.set("answer", 42)
                assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        finally:
            running.stop()


def test_only_the_owner_with_the_password_gets_in(valkey: Valkey) -> None:
    running = Running(valkey)
    try:
        assert not valkey.is_unused()
        assert stat.S_IMODE((valkey.folder / SOCKET).stat().st_mode) == 0o700
        assert stat.S_IMODE((valkey.folder / "valkey.conf").stat().st_mode) == 0o600
        for password in (None, "wrong"):
            client = redis.Redis(unix_socket_path=str(valkey.folder / SOCKET), password=password)
            with client, pytest.raises(redis.AuthenticationError):
                client.ping()
        (valkey.folder.parent / "secrets" / "valkey").write_text("another\n")
        with pytest.raises(SetupError, match="secrets/valkey"):
            valkey.answers()
    finally:
        running.stop()
    assert valkey.is_unused()
    assert not valkey.answers()


def test_a_path_too_long_for_a_socket_is_refused(short_folder: Path) -> None:
    with pytest.raises(SetupError, match="HEARTGUARD_DATA"):
        Valkey(short_folder / ("x" * 100), short_folder).prepare()
