"""What docker-compose.yml passes on, and what it does not."""

import re
import subprocess
from dataclasses import fields
from importlib import import_module
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from heartguard.listening import ServerSettings
from heartguard.local.influx import SETTINGS
from heartguard.local.influx_limits import limits
from heartguard.services import SERVICES, Service
from heartguard.settings import ROOT, load
from services.influx.src.settings import Settings as TimeseriesSettings

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
TAKEN_OVER = re.compile(r"\$\{([A-Z_]+)")


def names(settings: type) -> set[str]:
    return {item.metadata["name"] for item in fields(settings) if "name" in item.metadata} - {"PORT"}


def local_only() -> set[str]:
    """What .env.example says is not for Docker."""
    head = (ROOT / ".env.example").read_text().partition("\n\n")[0]
    return set(re.findall(r"[A-Z_]{6,}", "".join(re.findall(r"(?m)^#   .*$", head))))


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_every_setting_is_passed_on_or_stated_not_to_be(service: Service) -> None:
    described = COMPOSE["services"][service.name]
    passed = set(TAKEN_OVER.findall(str(described)))
    own = {service.port_variable.removesuffix("PORT") + name for name in ("WORKERS", "THREADS", "LOG_LEVEL")}
    wanted = names(import_module(f"{service.package}.settings").Settings) | names(ServerSettings) | own
    assert wanted - passed <= local_only()
    assert own <= described["environment"].keys()


@pytest.mark.parametrize(
    ("given", "backend", "url"),
    [
        ({}, "postgres", None),
        ({"INFLUX_URL": "https://influx.example.org"}, "influx", "https://influx.example.org"),
        ({"TIMESERIES_BACKEND": "influx"}, "influx", "http://influxdb:8086"),
        ({"TIMESERIES_BACKEND": "postgres", "INFLUX_URL": "https://x"}, "postgres", "https://x"),
    ],
)
def test_the_store_of_points_is_chosen_as_elsewhere(given: dict[str, str], backend: str, url: str | None) -> None:
    """The shell reads ``${…}`` as Compose does."""
    given = {"INFLUX_TOKEN": "t", "JWT_SECRET": "s" * 32, "VALKEY_PASSWORD": "p", **given}
    environment: dict[str, Any] = COMPOSE["services"]["timeseries"]["environment"]
    passed = {
        name: subprocess.run(
            ["bash", "-c", f'printf %s "{value}"'], env=given, capture_output=True, text=True, check=True
        ).stdout
        for name, value in environment.items()
    }
    settings = load(TimeseriesSettings, passed)
    assert (settings.backend, settings.influx_url) == (backend, url)


def test_the_influxdb_beside_has_the_limits_and_the_files_of_a_local_one() -> None:
    influxdb = COMPOSE["services"]["influxdb"]
    wanted = limits(16 * 2**30, 2)
    wanted.pop("GOMEMLIMIT")  # how much memory there is for it is not known
    for name, value in {**SETTINGS, "UI_DISABLED": None, "PPROF_DISABLED": None}.items():
        if value:
            wanted[f"INFLUXD_{name}"] = value
    given = {name: str(value) for name, value in influxdb["environment"].items()}
    assert {name: given.get(name) for name in wanted} == wanted
    timeseries = COMPOSE["services"]["timeseries"]["environment"]
    assert influxdb["ulimits"]["nofile"] == timeseries["INFLUX_MAX_FILES"]


def test_what_the_gateway_stores_is_not_in_memory() -> None:
    gateway = COMPOSE["services"]["gateway"]
    folder = gateway["environment"]["TMPDIR"]
    assert f"bodies:{folder}" in gateway["volumes"]
    assert "bodies" in COMPOSE["volumes"]
    assert folder in (ROOT / "deploy" / "Dockerfile").read_text()
