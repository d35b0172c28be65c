"""Small parts of the kit."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy.exc import OperationalError, ProgrammingError

from heartguard.context import request_id, trace_id, traceparent
from heartguard.database import is_unavailable
from heartguard.errors import Forbidden, ServiceError, Unauthorized
from heartguard.healthcheck import main as healthcheck
from heartguard.policy import Audience, authorize
from heartguard.tokens import Claims


def claims(role: str) -> Claims:
    return Claims(sub="1", role=role, org_id=1, sid="s", jti="j", typ="access", iat=0, exp=1)  # type: ignore[arg-type]


ALLOWED = {
    Audience.PUBLIC: {None, "user", "manager", "admin", "service"},
    Audience.SIGNED_IN: {"user", "manager", "admin"},
    Audience.MANAGER: {"manager", "admin"},
    Audience.ADMIN: {"admin"},
    Audience.SERVICE: {"service", "admin"},
    Audience.INTERNAL: {"admin"},
}


@pytest.mark.parametrize("audience", Audience)
@pytest.mark.parametrize("role", [None, "user", "manager", "admin", "service"])
def test_policy(audience: Audience, role: str | None) -> None:
    caller = claims(role) if role else None
    if role in ALLOWED[audience]:
        authorize(audience, caller)
    else:
        with pytest.raises(Forbidden if role else Unauthorized):
            authorize(audience, caller)


def test_request_ids_are_taken_only_where_well_formed() -> None:
    assert request_id("abc-1.2_3") == "abc-1.2_3"
    for bad in (None, "", "a b", "a" * 129, "a\n", "é"):
        assert request_id(bad) != bad


def test_traces_are_passed_on_or_begun() -> None:
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert traceparent(given) == given
    assert trace_id(given) == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert trace_id("nonsense") is None
    for bad in (None, "00-" + "0" * 32 + "-00f067aa0ba902b7-01", "ff" + given[2:], given.upper(), given + "\n"):
        assert traceparent(bad) != bad
        assert traceparent(traceparent(bad)) != bad


class _Original(Exception):
    def __init__(self, sqlstate: str | None) -> None:
        self.sqlstate = sqlstate


@pytest.mark.parametrize("state", [None, "57P01", "08006", "53300", "40P01", "55P03"])
def test_passing_database_errors(state: str | None) -> None:
    assert is_unavailable(OperationalError("", {}, _Original(state)))


@pytest.mark.parametrize("state", ["42P01", "23505", "22003"])
def test_lasting_database_errors(state: str) -> None:
    assert not is_unavailable(ProgrammingError("", {}, _Original(state)))


def test_errors_take_the_general_code_of_the_service_that_answers() -> None:
    body = ServiceError(404).body("TS", "r")
    assert (body.code, body.message, body.request_id) == ("TS_404", "There is nothing here", "r")
    assert ServiceError(418).message == "I'm a Teapot"


def test_the_health_check_of_a_container(free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTH_PORT", str(free_port()))
    monkeypatch.setenv("SERVICE", "auth")
    assert healthcheck() == 1


def test_logs_are_json_lines_from_structlog_and_from_libraries() -> None:
    script = """
import logging
from heartguard import logs
logs.configure("auth", "INFO")
logs.log.info("request", status=200, path="/x")
logs.log.debug("not shown")
logging.getLogger("library").warning("careful")
try:
    1 / 0
except ZeroDivisionError as error:
    logs.log.error("failure", exc_info=error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    request, warning, failure = (json.loads(line) for line in done.stdout.splitlines())
    assert (request["service"], request["level"], request["event"], request["status"]) == (
        "auth",
        "INFO",
        "request",
        200,
    )
    assert request["timestamp"].endswith("Z")
    assert (warning["event"], warning["level"]) == ("careful", "WARNING")
    assert "ZeroDivisionError" in failure["exception"]


@pytest.fixture(autouse=True)
def _keep_logging_as_it_was() -> Iterator[None]:
    handlers = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = handlers
