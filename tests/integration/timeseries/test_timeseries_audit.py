"""What changes points or buckets is in the audit trail, and nothing else is."""

from typing import Any

import pytest
from sqlalchemy import text

from heartguard.audit.event import Event, decode

from .conftest import Caller, postgres_only


@pytest.fixture
def told(superuser: Any, admin: Caller) -> Any:
    """The events that were committed for the organization."""

    def read() -> list[Event]:
        with superuser.transaction() as tx:
            rows = tx.execute(text("SELECT event FROM heartguard_core.audit_outbox ORDER BY id")).scalars()
            return [event for event in map(decode, map(str.encode, rows)) if event.org_id == admin.org_id]

    return read


@postgres_only
def test_a_batch_is_one_event_without_its_points(admin: Caller, told: Any) -> None:
    points = [{"measurement": "m", "fields": {"a": 1, "b": 2}, "timestamp": f"2024-06-01T10:00:0{n}Z"} for n in (1, 2)]
    assert admin.write(*points).status_code == 200
    created, written = told()
    assert (created.action, created.payload) == ("BUCKET_CREATE", {"bucket": f"org_{admin.org_id}"})
    assert (written.action, written.actor, written.outcome) == ("TIMESERIES_WRITE", "1", "success")
    assert written.payload == {"bucket": f"org_{admin.org_id}", "values": 4}
    assert admin.write(*points).status_code == 200, "an upsert"
    assert [event.action for event in told()[2:]] == ["TIMESERIES_WRITE"]


@postgres_only
def test_buckets_come_and_go(admin: Caller, told: Any) -> None:
    name = f"org_{admin.org_id}_study"
    assert admin.create(name).status_code == 201
    assert admin.create(name).status_code == 409
    assert admin.send("DELETE", f"/timeseries/buckets/{name}").status_code == 204
    assert admin.send("DELETE", f"/timeseries/buckets/{name}").status_code == 404
    assert [(event.action, event.payload["bucket"]) for event in told()] == [
        ("BUCKET_CREATE", name),
        ("BUCKET_DELETE", name),
    ]


def test_what_is_refused_was_not_written(admin: Caller, told: Any) -> None:
    assert admin.write({"measurement": "m", "fields": {"a": 1}}).status_code == 200
    before = len(told())
    assert admin.write({"measurement": "m", "fields": {"a": "text"}}).status_code == 422
    assert admin.query().status_code == 200
    assert len(told()) == before
