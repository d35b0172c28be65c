"""The demo's parts; the whole of it runs in tests/e2e."""

from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO

import pytest
from rich.console import Console

from heartguard.cli.client import GatewayClient, Refused
from heartguard.cli.demo.command import Local
from heartguard.cli.demo.heart import points, rfc3339, sparkline
from heartguard.cli.demo.recording import PLAUSIBLE_RR, load, slowed
from heartguard.cli.demo.trail import Chronicle, show
from heartguard.models.audit_event import Outcome, RecordedEvent
from heartguard.models.timeseries import WriteRequest, WriteResult
from heartguard.negotiation import Format
from heartguard.settings import load as load_settings


def test_the_recording_is_a_heart() -> None:
    recording = load()
    assert recording.seconds == len(recording.rates) == 300
    assert len(recording.beats) == len(recording.rr_intervals) > 400
    assert all(PLAUSIBLE_RR[0] <= interval <= PLAUSIBLE_RR[1] for interval in recording.rr_intervals)
    assert all(30 <= rate <= 200 for rate in recording.rates)


def test_a_slowed_recording_is_the_same_heart_slower() -> None:
    recording = load()
    slower = slowed(recording, 1.25)
    assert slower.seconds == len(slower.rates) == recording.seconds
    assert len(slower.beats) == len(slower.rr_intervals) < len(recording.beats)
    assert slower.beats[-1] < slower.seconds
    assert slower.beats[:100] == pytest.approx([beat * 1.25 for beat in recording.beats[:100]])
    assert slower.rr_intervals[:100] == pytest.approx([interval * 1.25 for interval in recording.rr_intervals[:100]])
    assert max(slower.rr_intervals) <= PLAUSIBLE_RR[1]
    assert sum(slower.rates) < sum(recording.rates)


def test_the_points_are_the_patients_own() -> None:
    recording = load()
    made = list(points(recording, 1_717_236_000, 5))
    assert len(made) == len(recording.rates) + len(recording.beats)
    assert {point.tags["user_id"] for point in made} == {"5"}
    assert made[0].timestamp == "2024-06-01T10:00:00Z"


def test_times_are_rfc3339_in_utc() -> None:
    assert rfc3339(1_717_236_000.25) == "2024-06-01T10:00:00.250000Z"
    assert rfc3339(1_717_236_000) == "2024-06-01T10:00:00Z"


def test_sparklines() -> None:
    assert sparkline([0.0, 7.0], width=2) == "▁█"
    assert sparkline([5.0, 5.0, 5.0], width=3) == "▁▁▁"
    assert len(sparkline([float(n) for n in range(300)], width=75)) == 75


def test_an_absent_gateway_is_named(free_port: Callable[[], int]) -> None:
    client = GatewayClient(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Refused, match="is the stack running"):
        client.call("POST", "/timeseries/write", WriteRequest(points=[]), WriteResult, Format.JSON)
    with pytest.raises(Refused) as refused:
        client.send("GET", "/auth/profile")
    assert refused.value.status == 0


def event(request_id: str, action: str, outcome: Outcome = "success", **payload: str | int) -> RecordedEvent:
    now = datetime(2024, 6, 1, 10, tzinfo=UTC)
    return RecordedEvent(
        id="", actor="5", action=action, service="auth", outcome=outcome, occurred_at=now, recorded_at=now,
        payload=dict(payload), sequence=7, hash="", request_id=request_id,
    )  # fmt: skip


def test_what_has_to_be_in_the_trail_is_missed_until_it_is(free_port: Callable[[], int]) -> None:
    client = GatewayClient(f"http://127.0.0.1:{free_port()}", prefix="demo-1")
    for _ in range(2):
        with pytest.raises(Refused):
            client.send("GET", "/users")
    chronicle = Chronicle()
    chronicle.expect("ROLE_CHANGE", client)
    chronicle.expect("ACCESS_DENIED", client, "denied")
    assert chronicle.missing([event("demo-1-1", "ROLE_CHANGE"), event("demo-1-2", "ACCESS_DENIED", "denied")]) == [
        "ROLE_CHANGE (success) of request demo-1-2"
    ]
    assert chronicle.missing([event("demo-1-2", "ROLE_CHANGE"), event("demo-1-2", "ACCESS_DENIED")]) == [
        "ACCESS_DENIED (denied) of request demo-1-2"
    ]


def test_the_trail_names_people_and_counts_what_the_gateway_adds() -> None:
    console = Console(file=StringIO(), width=120)
    events = [
        event("1", "REQUEST", "intent", path="/users/6/role"),
        event("1", "ROLE_CHANGE", user_id=6, role="user"),
        event("1", "REQUEST", path="/users/6/role"),
        event("2", "REQUEST", "denied", path="/timeseries/write", note="[/no markup]"),
    ]
    show(events, {"5": "admin", "6": "manager"}, console)
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert "admin" in shown
    assert "user_id=manager, role=user" in shown
    assert "/users/6/role" not in shown
    assert "path=/timeseries/write, note=[/no markup]" in shown
    assert "1 intents" in shown


def test_the_local_admin_is_the_one_of_the_settings() -> None:
    local = load_settings(Local, {"GATEWAY_PORT": "5100", "BOOTSTRAP_ADMIN_PASSWORD": "correct horse"})
    assert (local.gateway, local.admin_email) == ("http://127.0.0.1:5100", "admin@heartguard.io")
    assert local.admin_password == "correct horse"
    assert not local.org_signup
