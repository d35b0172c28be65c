"""The demo's parts; the whole of it runs in tests/e2e."""

from collections.abc import Callable

import pytest

from heartguard.cli.client import GatewayClient, Refused
from heartguard.cli.demo import points, rfc3339, sparkline
from heartguard.cli.recording import PLAUSIBLE_RR, load
from heartguard.models.timeseries import WriteRequest, WriteResult
from heartguard.negotiation import Format


def test_the_recording_is_a_heart() -> None:
    recording = load()
    assert recording.seconds == len(recording.rates) == 300
    assert len(recording.beats) == len(recording.rr_intervals) > 400
    assert all(PLAUSIBLE_RR[0] <= interval <= PLAUSIBLE_RR[1] for interval in recording.rr_intervals)
    assert all(30 <= rate <= 200 for rate in recording.rates)


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
