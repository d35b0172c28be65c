"""What the gateway tells the audit trail."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from heartguard.audit import PLATFORM, Event, outcome_id
from heartguard.audit.event import decode
from heartguard.audit.stream import FIELD, STREAM
from services.gateway.src.upstream import Upstream

Fixture = Any


@pytest.fixture
def told(redis: Redis) -> Callable[[], list[Event]]:
    """The events in the stream, in their order."""
    redis.delete(STREAM)
    return lambda: [decode(fields[FIELD]) for _, fields in redis.xrange(STREAM)]


def test_a_change_is_an_intent_before_it_and_an_outcome_after(
    gateway: Fixture, service: Fixture, kit: Fixture, told: Fixture
) -> None:
    answer = gateway("DELETE", "/auth/sessions/7", kit.issue(), headers={"X-Request-ID": "r-1"})
    assert answer.status_code == 200
    intent, outcome = told()
    assert (intent.action, intent.outcome, intent.org_id, intent.request_id) == ("REQUEST", "intent", 1, "r-1")
    assert intent.payload == {"method": "DELETE", "route": "/auth/sessions/{id}", "path": "/auth/sessions/7"}
    assert (outcome.outcome, outcome.event_id) == ("success", outcome_id(intent.event_id))
    assert outcome.payload == {**intent.payload, "status": 200, "intent": intent.event_id}
    assert outcome.actor == intent.actor != "anonymous"


def test_reading_is_none(gateway: Fixture, service: Fixture, kit: Fixture, told: Fixture) -> None:
    assert gateway("GET", "/auth/profile", kit.issue()).status_code == 200
    assert told() == []


def test_a_change_that_fails_has_an_outcome_too(make: Fixture, kit: Fixture, told: Fixture, free_port: Fixture) -> None:
    gateway = make(AUTH_URL=f"http://127.0.0.1:{free_port()}")
    assert gateway("DELETE", "/auth/sessions/7", kit.issue()).status_code == 502
    assert [(event.outcome, event.payload.get("status")) for event in told()] == [("intent", None), ("failure", 502)]


def test_a_change_that_fails_unforeseen_has_one_too(
    gateway: Fixture, service: Fixture, kit: Fixture, told: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> Any:
        raise RuntimeError("a fault of our own")

    monkeypatch.setattr(Upstream, "send", broken)
    assert gateway("DELETE", "/auth/sessions/7", kit.issue()).status_code == 500
    assert [(event.outcome, event.payload.get("status")) for event in told()] == [("intent", None), ("unknown", 500)]


def test_who_is_refused_is_told_of(gateway: Fixture, service: Fixture, kit: Fixture, told: Fixture) -> None:
    assert gateway("GET", "/auth/profile").status_code == 401
    assert gateway("GET", "/auth/ready", kit.issue()).status_code == 403
    assert gateway("GET", "/auth/nowhere").status_code == 404
    assert [(event.action, event.outcome, event.org_id, event.payload["status"]) for event in told()] == [
        ("ACCESS_DENIED", "denied", PLATFORM, 401),
        ("ACCESS_DENIED", "denied", 1, 403),
    ]
    assert service.seen == []


def test_without_valkey_the_spool_takes_them(
    make: Fixture, service: Fixture, kit: Fixture, free_port: Fixture, tmp_path: Path
) -> None:
    gateway = make(
        AUTH_URL=service.url, REDIS_URL=f"redis://127.0.0.1:{free_port()}", AUDIT_SPOOL=str(tmp_path / "own")
    )
    assert gateway("POST", "/auth/login", data=b"{}", headers={"Content-Type": "application/json"}).status_code == 200
    (spool,) = (tmp_path / "own").glob("*.spool")
    assert [decode(line.partition(b" ")[2]).outcome for line in spool.read_bytes().splitlines()] == [
        "intent",
        "success",
    ]


def test_what_cannot_be_recorded_is_not_passed_on(
    make: Fixture, service: Fixture, kit: Fixture, free_port: Fixture, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    gateway = make(
        AUTH_URL=service.url, REDIS_URL=f"redis://127.0.0.1:{free_port()}", AUDIT_SPOOL=str(tmp_path / "file")
    )
    answer = gateway("POST", "/auth/login", data=b"{}", headers={"Content-Type": "application/json"})
    assert (answer.status_code, kit.error_of(answer)["code"]) == (503, "GATEWAY_503")
    assert service.seen == []


def test_a_secret_in_a_path_or_an_id_is_masked(gateway: Fixture, service: Fixture, kit: Fixture, told: Fixture) -> None:
    token = kit.issue()
    gateway("DELETE", f"/auth/sessions/anna@hg.io,{token}", token, headers={"X-Request-ID": token[:128]})
    assert len(told()) == 2
    for event in told():
        assert token[:60] not in repr(event)
        assert "anna@" not in repr(event)
