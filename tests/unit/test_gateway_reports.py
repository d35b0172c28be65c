import io
import sys
import time
import uuid
from typing import Any

import pytest

from heartguard import metrics
from heartguard.context import TRACEPARENT, new_uuid, traceparent
from heartguard.policy import Audience
from services.gateway.src import instruments
from services.gateway.src.addresses import Addresses
from services.gateway.src.reports import Reports
from services.gateway.src.request import Request
from services.gateway.src.routes import Route
from services.gateway.src.visit import Visit


class Line:
    """A connection of which only the ends are looked at."""

    peer = "192.0.2.1"
    server = ("127.0.0.1", 5000)


def visit_of(method: str) -> Visit:
    line: Any = Line()
    return Visit(Request(line, method, "/auth/login", {}), Addresses(()))


class Full(io.RawIOBase):
    """A disk without room."""

    def writable(self) -> bool:
        return True

    def write(self, _line: object) -> int:
        raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_written_fails_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = instruments.LINES_LOST._value.get()
    visit = visit_of("POST")
    visit.route = Route(service="auth", method="POST", path="/auth/login", audience=Audience.PUBLIC, max_body=0)
    reports = Reports("INFO")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Full(), buffer_size=1)))
        reports.report(visit, 200)
        end = time.monotonic() + 5
        while instruments.LINES_LOST._value.get() == lost:
            assert time.monotonic() < end
            time.sleep(0.01)
        sys.stdout.detach().detach()


def test_unknown_methods_share_one_label() -> None:
    visit = visit_of("BREW")
    Reports("ERROR").report(visit, 405)
    assert metrics.REQUESTS.labels("gateway", "other", "unknown", 405)._value.get() >= 1


def test_ids_are_uuids_of_version_4_and_valid_traces() -> None:
    made = [uuid.UUID(new_uuid()) for _ in range(200)]
    assert {(one.version, one.variant) for one in made} == {(4, uuid.RFC_4122)}
    assert len(set(made)) == 200
    assert all(TRACEPARENT.match(traceparent(None)) for _ in range(200))
