"""Recording by HTTP, and reading in pages."""

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from lxml import etree
from sqlalchemy import text

from heartguard import audit

from .conftest import Caller


def test_an_event_is_recorded_once(admin: Any) -> None:
    event_id = str(uuid.uuid4())
    first = admin.post(event_id=event_id.upper())
    again = admin.post(event_id=event_id, action="LOGOUT")
    assert (first.status_code, first.json) == (201, {"id": event_id, "status": "recorded"})
    assert (again.status_code, again.json) == (200, {"id": event_id, "status": "recorded"})
    (event,) = admin.events()
    assert (event["id"], event["action"], event["sequence"]) == (event_id, "LOGIN", 1)


def test_an_id_is_its_organizations_own(admin: Any) -> None:
    other = replace(admin, org_id=admin.org_id + 1_000_000)
    event_id = str(uuid.uuid4())
    for caller in (admin, other, replace(admin, role="service", org_id=0)):
        assert [caller.post(event_id=event_id).status_code for _ in range(2)] == [201, 200]
    assert [len(caller.events()) for caller in (admin, other)] == [1, 1]


def test_ids_from_before_they_were_an_organizations_stay_known(admin: Any, superuser: Any) -> None:
    event_id = str(uuid.uuid4())
    with superuser.transaction() as tx:
        tx.execute(text("INSERT INTO heartguard_core.audit_event_ids (event_id) VALUES (:id)"), {"id": event_id})
    assert admin.post(event_id=event_id).status_code == 200
    assert admin.events() == []


def test_nobody_anticipates_the_outcome_of_a_request(admin: Any) -> None:
    refused = admin.post(event_id=audit.outcome_id(str(uuid.uuid4())))
    assert refused.status_code == 422
    assert refused.json["error"]["details"] == [
        {"path": "/event_id", "message": "must be no UUID of version 5: those are derived, not given"}
    ]


def test_what_was_not_said_is_filled_in(admin: Any) -> None:
    assert admin.post().status_code == 201
    (event,) = admin.events()
    assert (event["outcome"], event["payload"], len(event["hash"])) == ("success", {}, 64)
    assert event["occurred_at"] <= event["recorded_at"]
    assert uuid.UUID(event["id"]).version == 7
    assert event["request_id"]


def test_xml_in_and_out(admin: Any) -> None:
    body = (
        "<AuditEventCreate><actor>user@hg.io</actor><action>LOGIN</action><service>auth</service>"
        "<payload><note>for anna@hg.io</note><n>3</n><whole>2.0</whole><yes>true</yes></payload>"
        "<occurred_at>2024-06-01T10:00:00.123456789Z</occurred_at><request_id>r-1</request_id>"
        "<outcome>failure</outcome></AuditEventCreate>"
    )
    xml = {"Content-Type": "application/xml", "Accept": "application/xml"}
    answer = admin.send("POST", "/audit/events", data=body.encode(), headers=xml)
    assert answer.status_code == 201
    assert etree.fromstring(answer.data).findtext("status") == "recorded"
    (event,) = admin.events()
    assert {name: event[name] for name in ("actor", "outcome", "occurred_at", "request_id", "payload")} == {
        "actor": "u***@hg.io",
        "outcome": "failure",
        "occurred_at": "2024-06-01T10:00:00.123456Z",
        "request_id": "r-1",
        "payload": {"note": "for a***@hg.io", "n": 3, "whole": 2, "yes": True},
    }
    page = etree.fromstring(admin.send("GET", "/audit/events", headers=xml).data)
    assert page.findtext("items/item/payload/note") == "for a***@hg.io"


def test_secrets_and_personal_data_are_masked(admin: Any) -> None:
    admin.post(
        actor="anna@hg.io",
        payload={"password": "canary", "first_name": "canary", "text": "canary@hg.io from 203.0.113.9"},
    )
    (event,) = admin.events()
    assert "canary" not in str(event).replace("c***", "")
    assert event["payload"] == {"first_name": "***", "password": "***", "text": "c***@hg.io from ***"}
    assert admin.events("?actor=anna@hg.io") == [event], "one finds it by the address nevertheless"


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "login"}, {"action": "A" * 65}, {"actor": ""}, {"service": ""}, {"surplus": 1},
        {"event_id": "x"}, {"occurred_at": "yesterday"}, {"outcome": "good"}, {"payload": {"a": {"b": 1}}},
        {"payload": [1]}, {"request_id": "a b"},
    ],
)  # fmt: skip
def test_what_breaks_the_schema_is_refused(admin: Any, wrong: dict[str, Any]) -> None:
    assert admin.post(**wrong).status_code == 422
    assert admin.events() == []


def test_who_may(admin: Any) -> None:
    for role, recorded, read in (("user", 403, 403), ("manager", 403, 403), ("service", 201, 403), ("admin", 201, 200)):
        caller = replace(admin, role=role)
        assert caller.post().status_code == recorded
        for path in ("/audit/events", "/audit/verify", "/audit/export"):
            assert caller.send("GET", path).status_code == read
    assert admin.app.test_client().get("/audit/events").status_code == 401


def test_an_organization_sees_only_its_own(admin: Any) -> None:
    other = replace(admin, org_id=admin.org_id + 1_000_000)
    admin.post(actor="mine")
    other.post(actor="theirs")
    replace(admin, role="service", org_id=0).post(actor="nobody's")
    assert [event["actor"] for event in admin.events()] == ["mine"]
    assert [event["actor"] for event in other.events()] == ["theirs"]
    assert b"theirs" not in admin.export()
    assert admin.verification()["events"] == 1


def test_pages_stay_as_they_are_while_events_are_added(admin: Any, fill: Callable[..., None]) -> None:
    fill(admin, 95)
    seen = []
    page = admin.page("?limit=10")
    while True:
        seen += page["items"]
        fill(admin, 3, action="LATER")
        if "next_cursor" not in page:
            break
        page = admin.page(f"?limit=10&cursor={page['next_cursor']}")
    assert [event["payload"]["n"] for event in seen] == list(range(95))[::-1]


def test_the_link_leads_on(admin: Any, fill: Callable[..., None]) -> None:
    fill(admin, 3)
    answer = admin.send("GET", "/audit/events?limit=2&action=LOGIN")
    assert answer.json is not None
    link = answer.headers["Link"]
    assert link.endswith('; rel="next"')
    rest = admin.send("GET", link[1 : link.index(">")])
    assert (rest.json["items"][0]["sequence"], "Link" in rest.headers) == (1, False)


def test_filters(admin: Any) -> None:
    times = ["2024-06-01T10:00:00Z", "2024-06-01T11:00:00Z", "2024-06-01T12:00:00Z"]
    for number, at in enumerate(times):
        admin.post(actor=str(number), service="auth", outcome="failure", occurred_at=at)
        admin.post(actor=str(number), service="user", action="LOGOUT", occurred_at=at)
    for query, expected in (
        ("actor=1", 2),
        ("action=LOGOUT", 3),
        ("service=auth&outcome=failure", 3),
        ("service=auth&outcome=success", 0),
        ("outcome=unknown", 0),
        (f"from={times[1]}", 4),
        (f"to={times[1]}", 2),
        (f"from={times[1]}&to={times[2]}&action=LOGIN", 1),
        (f"actor=2&from={times[0]}&to=2025-01-01T00:00:00Z", 2),
    ):
        assert len(admin.events(f"?limit=1&{query}")) == expected, query


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=201", "limit=x", "cursor=x", "cursor=%00", "cursor=AAAA", "from=yesterday", "to=2024",
        "outcome=good", "action=login", "surplus=1", "limit=1&limit=2", "cursor=" + "A" * 300,
    ],
)  # fmt: skip
def test_what_cannot_be_asked(admin: Any, query: str) -> None:
    assert admin.send("GET", f"/audit/events?{query}").status_code == 422


def test_hostile_filters_find_nothing(admin: Any) -> None:
    admin.post()
    for actor in ("' OR 1=1 --", "%27%3B%20DROP%20TABLE", "%00", "\\", "%F0%9F%98%80"):
        assert admin.page(f"?actor={actor}")["items"] == []
        assert admin.page(f"?service={actor}")["items"] == []


def test_without_postgresql_it_is_a_503(run_service: Callable[..., Any]) -> None:
    with run_service(DATABASE_URL="postgresql://x:x@127.0.0.1:1/x") as app:
        caller = Caller(app, 1)
        assert caller.post().status_code == 503
        assert caller.send("GET", "/audit/events").status_code == 503
        assert caller.send("GET", "/audit/ready").status_code == 503
        assert caller.send("GET", "/audit/health").status_code == 200
