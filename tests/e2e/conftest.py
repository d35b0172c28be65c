"""A whole stack of the tests' own, for the modules that need one."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heartguard.cli.main import app
from heartguard.services import SERVICES


@pytest.fixture(scope="module")
def stack_settings(free_port: Callable[[], int]) -> Iterator[dict[str, str]]:
    """The environment of a stack that touches neither the checkout's ``.env`` nor its data; down at the end."""
    folder = Path(tempfile.mkdtemp(prefix="hg-"))
    settings = {
        "HEARTGUARD_DATA": str(folder / "data"),
        "JWT_SECRET": "s" * 32,
        "BOOTSTRAP_ADMIN_EMAIL": "boss@hg.io",
        "BOOTSTRAP_ADMIN_PASSWORD": "correct horse battery staple",
        "RATE_LIMIT": "100000/min",
        "AUTH_RATE_LIMIT": "100000/min",
        "TIMESERIES_MAX_BUCKETS": "200",
        "DATABASE_URL": "",
        "REDIS_URL": "",
        "TIMESERIES_BACKEND": "",
        "INFLUX_URL": "",
        **{service.port_variable: str(free_port()) for service in SERVICES.values()},
        **{service.url_variable: "" for service in SERVICES.values()},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        try:
            yield settings
        finally:
            CliRunner().invoke(app, ["down"], prog_name="heartguard")
            shutil.rmtree(folder)
