"""Which InfluxDB the tests run on, and that none of them leaves anything behind there."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from . import influx as influxes
from .influx import IMITATION, REAL, Influx, Json
from .influxd import Unusable
from .organizations import NOBODY_S, Organizations, drop_named

VERSIONS = {"InfluxDB v2.9.1 (git: d4fa1941)": "2.9.1", "InfluxDB 2.0.0-beta.1": "2.0.0-beta.1"}
OTHERS = ["InfluxDB v1.6.7~rc0 (git: unknown unknown)", "InfluxDB 3.0.1", "influxdb3 3.0.1", ""]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of ``PATH``; nothing else is known of any InfluxDB."""
    (tmp_path / "env").symlink_to(shutil.which("env") or "")  # programs are asked by way of it
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("INFLUXD", raising=False)
    for name in influxes.GIVEN:
        monkeypatch.setitem(influxes.GIVEN, name, "")
    return tmp_path


def program(place: Path, said: str) -> Path:
    place.write_text(f"#!/bin/sh\necho '{said}'\n")
    place.chmod(0o755)
    return place


@pytest.mark.parametrize(("said", "version"), VERSIONS.items(), ids=VERSIONS.values())
def test_an_influxdb_2_is_taken(path: Path, said: str, version: str) -> None:
    binary = program(path / "influxd", said)
    choice = influxes.choose()
    assert choice.found is not None
    assert (choice.kind, choice.found.path, choice.found.version) == (REAL, binary, version)
    assert f"InfluxDB {version} (found at {binary})" in str(choice)


@pytest.mark.parametrize("said", OTHERS)
def test_another_one_is_not_taken(path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    program(path / "influxd", said)
    choice = influxes.choose()
    assert (choice.kind, choice.found) == (IMITATION, None)
    assert f"the imitation of InfluxDB ({path / 'influxd'} is " in str(choice)
    monkeypatch.setenv("INFLUXD", str(path / "influxd"))
    with pytest.raises(Unusable, match=f"^{path / 'influxd'} is "):
        influxes.choose()


def test_one_that_is_named_comes_before_that_in_the_path(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(path / "influxd", "InfluxDB v2.1.0")
    monkeypatch.setenv("INFLUXD", str(program(path / "other", "InfluxDB v2.2.0")))
    assert influxes.choose().found == influxes.influxd.Influxd(path / "other", "2.2.0")


def test_without_any_there_is_the_imitation(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = influxes.choose()
    assert (choice.kind, choice.why) == (IMITATION, "no influxd found")
    monkeypatch.setenv("INFLUXD", str(path / "none"))
    with pytest.raises(Unusable, match="which is no program"):
        influxes.choose()


def test_a_given_server_is_given_in_full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(influxes.GIVEN, "INFLUX_URL", "http://127.0.0.1:1")
    with pytest.raises(Unusable, match="HEARTGUARD_TEST_INFLUX_TOKEN, HEARTGUARD_TEST_INFLUX_ORG"):
        influxes.choose()
    monkeypatch.setitem(influxes.GIVEN, "INFLUX_TOKEN", "t")
    monkeypatch.setitem(influxes.GIVEN, "INFLUX_ORG", "o")
    assert influxes.choose().kind == REAL


def test_the_buckets_of_some_organizations_are_dropped(influx: Influx, organizations: Organizations) -> None:
    before = organizations.given
    kept, dropped = f"org_{organizations.new()}_x", f"org_{organizations.new()}"
    names = {kept, dropped, f"{dropped}_y", f"heartguard_dropped_{dropped}_0123456789abcdef"}
    for name in names:
        influx.create(name)
    drop_named(influx, organizations.names(before + 1))
    assert names & {bucket["name"] for bucket in influx.buckets()} == {kept}


def test_what_is_left_over_is_old_and_of_another_run() -> None:
    mine, other = Organizations(), Organizations()
    old, young = (datetime.now(UTC) - NOBODY_S - timedelta(minutes=minutes) for minutes in (1, -1))

    def bucket(name: str, made: datetime) -> Json:
        return {"name": name, "createdAt": made.isoformat()}

    named = f"org_{other.new()}_x"
    assert mine.is_left_over(bucket(named, old))
    assert mine.is_left_over(bucket(f"heartguard_dropped_{named}", old))
    assert not mine.is_left_over(bucket(named, young))
    assert not mine.is_left_over(bucket(f"org_{mine.new()}", old))
    for name in ("org_7", "org_7_x", "first", "_tasks", "org_123", f"my_{named}"):
        assert not mine.is_left_over(bucket(name, old))
