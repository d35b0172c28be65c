"""``heartguard validate`` against a whole stack: well, with a service stopped, with the wrong password, interrupted."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from heartguard.cli.client import GatewayClient
from heartguard.cli.main import app
from heartguard.cli.stopping import Stopped
from heartguard.cli.validate.command import planned
from heartguard.cli.validate.runner import Runner
from heartguard.cli.validate.sign_in import Credentials, sign_in
from heartguard.local.server import wait_until
from heartguard.local.stack import Stack
from heartguard.models.auth_token import RegisterRequest, RegisterResponse
from heartguard.models.media_item import MediaItems
from heartguard.models.organization import Organization
from heartguard.models.timeseries import Buckets
from heartguard.models.user import Users
from heartguard.services import SERVICES

from .relay import failing_over, relay

ADMIN = Credentials("boss@hg.io", "correct horse battery staple")


@pytest.fixture(scope="module")
def stack(stack_settings: dict[str, str]) -> Stack:
    result = CliRunner().invoke(app, ["up"], prog_name="heartguard")
    assert result.exit_code == 0, result.output
    return Stack()


def validate(stack: Stack, file: Path, *arguments: str, **environ: str) -> tuple[int, str, dict[str, Any]]:
    """Exit code, what was said, and the report."""
    settings = {"GATEWAY_URL": stack.gateway, **environ}
    result = CliRunner().invoke(
        app, ["validate", "--json", str(file), *arguments], prog_name="heartguard", env=settings
    )
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output, json.loads(file.read_text()) if file.exists() else {}


@pytest.fixture
def admin(stack: Stack) -> GatewayClient:
    client = GatewayClient(stack.gateway)
    runner = Runner(client, lambda _: None)
    sign_in(runner, client, ADMIN)
    client.token = runner.scene.token
    return client


def things(admin: GatewayClient) -> list[Any]:
    """All that a run could leave behind or change."""
    organization = admin.call("GET", "/organization", None, Organization)
    return [
        [user.email for user in admin.call("GET", "/users?limit=200", None, Users).items],
        [str(item.id) for item in admin.call("GET", "/media/items?limit=200", None, MediaItems).items],
        [bucket.bucket for bucket in admin.call("GET", "/timeseries/buckets", None, Buckets).buckets],
        (organization.name, organization.policies, organization.contact_email, organization.timezone),
    ]


def test_all_is_well_and_nothing_is_left(stack: Stack, admin: GatewayClient, tmp_path: Path) -> None:
    before = things(admin)
    code, said, report = validate(stack, tmp_path / "result.json")
    assert code == 0, said
    assert "All is well" in said
    assert report["passed"] is True
    assert report["ok"] == len(report["operations"]) == 2 * len(planned())
    assert {row["service"] for row in report["operations"]} == set(SERVICES)
    assert all(row["milliseconds"] > 0 for row in report["operations"])
    assert things(admin) == before


@pytest.mark.parametrize("size", [1_400, 5_000_000])
def test_a_store_that_fails_with_long_answers_is_noticed(stack: Stack, size: int, tmp_path: Path) -> None:
    with relay(stack.gateway, failing_over(size)) as url:
        code, said, report = validate(stack, tmp_path / "result.json", GATEWAY_URL=url)
    assert code == 1, said
    assert "Not all is well in timeseries:" in said
    bad = {(row["operation"], row["format"]) for row in report["operations"] if row["verdict"] != "ok"}
    long = {"POST /timeseries/query, 100000 values"}
    long |= {"POST /timeseries/query, windows"} if size == 1_400 else set()
    assert bad == {(operation, fmt) for operation in long for fmt in ("JSON", "XML")}


@pytest.fixture
def stopped(stack: Stack, request: pytest.FixtureRequest) -> Iterator[str]:
    """A service that is not running, until the test is over."""
    name: str = request.param
    stack.supervisor._call("supervisor.stopProcess", f"services:{name}")
    yield name
    stack.supervisor._call("supervisor.startProcess", f"services:{name}")
    wait_until(lambda: all(row.well for row in stack.status()), "Not everything was ready again", 30)


@pytest.mark.parametrize("stopped", [name for name in SERVICES if name not in {"gateway", "auth"}], indirect=True)
def test_a_service_that_is_away_is_named(stack: Stack, stopped: str, tmp_path: Path) -> None:
    code, said, report = validate(stack, tmp_path / "result.json")
    assert code == 1, said
    assert f"Not all is well in {stopped}:" in said
    assert {row["service"] for row in report["operations"] if row["verdict"] != "ok"} == {stopped}
    red = [row for row in report["operations"] if row["service"] == stopped]
    assert {row["verdict"] for row in red} == {"failed"}
    assert {row["status"] for row in red} <= {502, 503}


@pytest.mark.parametrize("stopped", ["auth"], indirect=True)
def test_without_the_auth_service_nobody_signs_in(stack: Stack, stopped: str, tmp_path: Path) -> None:
    code, said, report = validate(stack, tmp_path / "result.json")
    assert code == 1, said
    assert "Not all is well in auth:" in said
    assert {row["service"] for row in report["operations"] if row["verdict"] == "failed"} == {"auth"}
    assert report["skipped"] > 0


def test_a_wrong_password_is_no_finding(stack: Stack, tmp_path: Path) -> None:
    code, said, report = validate(stack, tmp_path / "result.json", VALIDATE_PASSWORD="not the password")
    assert code == 2
    assert "boss@hg.io cannot sign in" in said
    assert "VALIDATE_PASSWORD" in said
    assert report == {}


def test_only_an_admin_can_try_everything(stack: Stack, admin: GatewayClient, tmp_path: Path) -> None:
    person = RegisterRequest(email="manager@hg.io", password="a good long password", role="manager")
    admin.call("POST", "/auth/register", person, RegisterResponse)
    code, said, _ = validate(stack, tmp_path / "r.json", "--email", person.email, VALIDATE_PASSWORD=person.password)
    assert code == 2
    assert "no admin but a manager" in said


def test_what_was_made_is_removed_however_it_ends(stack: Stack, admin: GatewayClient) -> None:
    before = things(admin)
    client = GatewayClient(stack.gateway)
    runner = Runner(client, lambda _: None)
    sign_in(runner, client, ADMIN)
    wanted = {"POST /auth/register", "POST /timeseries/buckets", "POST /media/upload"}
    for step, operation in planned():
        if operation.name in wanted:
            assert [row.verdict for row in runner.run(step, operation)] == ["ok", "ok"]
    assert things(admin) != before
    client.stop.ask()
    with pytest.raises(Stopped):
        list(runner.run(*planned()[0]))
    assert runner.clean_up() == []
    assert things(admin) == before
