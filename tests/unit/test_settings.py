"""Settings: what is read, from where, and how a wrong one is named."""

from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import pytest

from heartguard.settings import (
    Rate,
    ServiceSettings,
    SettingsError,
    boolean,
    choice,
    environment,
    integer,
    load,
    networks,
    origins,
    rate,
    text,
    url,
    variable,
)

SECRET = "s" * 32


@dataclass(frozen=True, kw_only=True)
class Sample(ServiceSettings):
    port: int = variable("PORT", integer(1, 65535), "5000")
    origin: str | None = variable("ORIGIN", text, optional=True)
    derived: int = 7


def test_defaults_are_written_as_in_the_environment() -> None:
    settings = load(Sample, {"JWT_SECRET": SECRET})
    assert (settings.port, settings.origin, settings.derived, settings.jwt_expires_minutes) == (5000, None, 7, 60)


def test_every_problem_is_named_at_once_and_no_value_is_shown() -> None:
    with pytest.raises(SettingsError) as failure:
        load(Sample, {"JWT_SECRET": "too short", "PORT": "http", "LOG_LEVEL": "LOUD"})
    message = str(failure.value)
    assert "JWT_SECRET: should be at least 32 bytes" in message
    assert "PORT: should be a whole number from 1 to 65535" in message
    assert "LOG_LEVEL: should be one of" in message
    assert "too short" not in message


def test_a_missing_variable_names_itself() -> None:
    with pytest.raises(SettingsError, match="JWT_SECRET: is needed and not set"):
        load(Sample, {})


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    assert load(Sample, {"JWT_SECRET_FILE": str(path)}).jwt_secret == SECRET.encode()


def test_an_unreadable_secret_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="JWT_SECRET: the file named by JWT_SECRET_FILE cannot be read"):
        load(Sample, {"JWT_SECRET_FILE": str(tmp_path / "absent")})


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("HG_FROM_FILE=file\nHG_FROM_BOTH=file\nHG_QUOTED='a $b'\n")
    monkeypatch.setenv("HG_FROM_BOTH", "process")
    found = environment(tmp_path)
    assert (found["HG_FROM_FILE"], found["HG_FROM_BOTH"], found["HG_QUOTED"]) == ("file", "process", "a $b")


def test_a_field_made_without_variable_is_a_mistake_in_the_code() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Wrong:
        port: int

    with pytest.raises(TypeError, match="port"):
        load(Wrong, {})


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("100/min", Rate(limit=100, seconds=60)),
        ("5/s", Rate(limit=5, seconds=1)),
        ("7/hour", Rate(limit=7, seconds=3600)),
    ],
)
def test_rates(written: str, expected: Rate) -> None:
    assert rate(written) == expected


@pytest.mark.parametrize("written", ["100", "0/min", "x/min", "1/day", "-1/s", "1000001/s"])
def test_wrong_rates(written: str) -> None:
    with pytest.raises(ValueError, match="should be a rate such as 100/min"):
        rate(written)


def test_networks_and_origins() -> None:
    assert networks("127.0.0.0/8, ::1") == (ip_network("127.0.0.0/8"), ip_network("::1"))
    assert networks("") == ()
    assert origins("https://a.example/, http://b.example:8080") == {"https://a.example", "http://b.example:8080"}


@pytest.mark.parametrize(
    ("parse", "written"),
    [
        (networks, "10.0.0.1/8"),
        (origins, "a.example"),
        (origins, "https://a.example/path"),
        (boolean, "yes"),
        (choice("a", "b"), "c"),
        (url("redis"), "http://x"),
        (url("redis"), "redis://[::1"),
        (integer(1, 5), "6"),
        (integer(1, 5), "٣"),
    ],
)
def test_values_that_are_refused(parse: object, written: str) -> None:
    with pytest.raises(ValueError, match="should be"):
        parse(written)  # type: ignore[operator]


def test_booleans_and_urls() -> None:
    assert boolean("TRUE") is True
    assert boolean("false") is False
    assert url("redis", "unix")("redis://localhost:6379/") == "redis://localhost:6379"
