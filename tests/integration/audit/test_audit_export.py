"""A long chain is fetched in parts: each is checked by itself, and all in a row as the one chain that they are."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from heartguard.audit import verify
from heartguard.database import Database
from services.audit.src.recorder import Recorder

from .conftest import Caller

Fill = Callable[..., None]
Check = Callable[..., int]


@pytest.fixture
def signed(fill: Fill, recorder: Recorder, database: Database) -> Fill:
    """Records events, and signs the chain then."""

    def record(admin: Caller, count: int) -> None:
        fill(admin, count)
        with database.transaction() as tx:
            recorder.sign(tx, admin.org_id)

    return record


def heading(part: bytes) -> dict[str, Any]:
    return dict(json.loads(part.splitlines()[0]))


def events(*parts: bytes) -> list[bytes]:
    return [line for part in parts for line in part.splitlines() if line.startswith(b'{"event":')]


def test_parts_are_the_whole(admin: Caller, signed: Fill, check_offline: Check) -> None:
    signed(admin, 1200)
    signed(admin, 1300)
    parts = [
        admin.export("?to_sequence=1250"),
        admin.export("?from_sequence=1251&to_sequence=2000"),
        admin.export("?from_sequence=2001&to_sequence=2000000"),
    ]
    assert events(*parts) == events(admin.export())
    assert [(part["first_sequence"], part["last_sequence"]) for part in map(heading, parts)] == [
        (1, 1250), (1251, 2000), (2001, 2500),
    ]  # fmt: skip
    assert check_offline(*parts) == verify.WHOLE
    assert check_offline(admin.export("?from_sequence=1&to_sequence=2500")) == verify.WHOLE


def test_a_part_says_what_it_does_not_cover(
    admin: Caller, signed: Fill, check_offline: Check, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        signed(admin, 10)
    assert check_offline(admin.export("?from_sequence=6&to_sequence=23")) == verify.PART
    assert (
        capsys.readouterr().out.splitlines()[0].startswith(f"PART   organization {admin.org_id}: events 6 to 23, hash")
    )
    assert check_offline(admin.export("?from_sequence=6")) == verify.PART
    told = capsys.readouterr().out
    assert "NOT CHECKED: events 1 to 5;" in told
    assert "NOT CHECKED: what was recorded after 20" in told
    assert check_offline(admin.export("?to_sequence=23")) == verify.PART
    told = capsys.readouterr().out
    assert "NOT CHECKED: whatever comes after event 23;" in told
    assert "no checkpoint vouches for events 21 to 23" in told
    assert "WHOLE" not in told


def test_what_has_no_checkpoint_is_checked_with_the_next(admin: Caller, signed: Fill, check_offline: Check) -> None:
    signed(admin, 30)
    parts = [admin.export("?to_sequence=10"), admin.export("?from_sequence=11")]
    assert check_offline(parts[0]) == verify.UNCHECKED
    assert check_offline(*parts) == verify.WHOLE


def test_where_nothing_was_recorded_since(admin: Caller, signed: Fill, check_offline: Check) -> None:
    empty = admin.export("?from_sequence=1")
    assert events(empty) == []
    assert check_offline(empty) == verify.WHOLE
    signed(admin, 5)
    first, rest = admin.export(), admin.export("?from_sequence=6")
    assert events(rest) == []
    assert check_offline(first, rest) == verify.WHOLE
    assert check_offline(rest) == verify.UNCHECKED
    signed(admin, 5)
    assert check_offline(first, rest, admin.export("?from_sequence=6")) == verify.WHOLE, "the chain has grown meanwhile"


@pytest.mark.parametrize(
    ("query", "path", "message"),
    [
        ("?from_sequence=0", "?", "`int` >= 1 - at `$.from_sequence`"),
        ("?to_sequence=0", "?", "`int` >= 1 - at `$.to_sequence`"),
        ("?from_sequence=-3", "?", "`int` >= 1 - at `$.from_sequence`"),
        ("?from_sequence=one", "?", "Expected `int`, got `str` - at `$.from_sequence`"),
        ("?from_sequence=1.5", "?", "Expected `int`, got `str` - at `$.from_sequence`"),
        (f"?to_sequence={2**63}", "?", "at `$.to_sequence`"),
        ("?from_sequence=7", "?from_sequence", "must be 1 to 6: others are archived, or not there yet"),
        ("?from_sequence=4&to_sequence=3", "?to_sequence", "must be 4 or more: with that event the part begins"),
        ("?to=3", "?", "unknown field `to`"),
    ],
)
def test_what_cannot_be_asked_for(admin: Caller, fill: Fill, query: str, path: str, message: str) -> None:
    fill(admin, 5)
    answer = admin.send("GET", f"/audit/export{query}")
    assert answer.status_code == 422
    assert answer.json is not None
    (detail,) = answer.json["error"]["details"]
    assert detail["path"] == path
    assert message in detail["message"]


def test_names_of_parts_are_in_the_order_of_the_chain(admin: Caller, fill: Fill) -> None:
    fill(admin, 12)
    shown = [
        admin.send("GET", f"/audit/export{query}").headers["Content-Disposition"]
        for query in ("?to_sequence=2", "?from_sequence=3&to_sequence=10", "?from_sequence=11")
    ]
    assert shown == sorted(shown)
    assert shown[1] == f'attachment; filename="audit-{admin.org_id}-000000000003-000000000010.ndjson"'


def test_parts_of_different_organizations(
    admin: Caller, signed: Fill, check_offline: Check, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(admin, org_id=admin.org_id + 3_000_000)
    for one in (admin, other):
        signed(one, 20)
    parts = admin.export("?to_sequence=10"), other.export("?from_sequence=11")
    assert check_offline(*parts) == verify.ALTERED
    assert (
        f"of organization {other.org_id}, what is before it of organization {admin.org_id}" in capsys.readouterr().out
    )


@pytest.mark.parametrize("query", ["?from_sequence=6", "?to_sequence=5"])
def test_a_part_at_whose_edge_an_event_is_missing_is_not_exported(
    admin: Caller, fill: Fill, superuser: Any, query: str
) -> None:
    fill(admin, 10)
    assert admin.send("GET", f"/audit/export{query}").status_code == 200
    with superuser.transaction() as tx:
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        gone = "DELETE FROM heartguard_core.audit_events WHERE org_id = :org AND sequence = 5"
        assert tx.execute(text(gone), {"org": admin.org_id}).rowcount == 1
    assert admin.send("GET", f"/audit/export{query}").status_code == 500


def test_a_part_from_behind_an_altered_event_does_not_hide_it(
    admin: Caller, signed: Fill, superuser: Any, check_offline: Check
) -> None:
    """Its hash was put right, those of later ones were not: then what begins behind it does not begin as it should."""
    signed(admin, 20)
    with superuser.transaction() as tx:
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        altered = "UPDATE heartguard_core.audit_events SET hash = sha256('x') WHERE org_id = :org AND sequence = 5"
        assert tx.execute(text(altered), {"org": admin.org_id}).rowcount == 1
    assert check_offline(admin.export("?from_sequence=6")) == verify.ALTERED
    assert check_offline(admin.export("?to_sequence=5")) == verify.ALTERED
    assert check_offline(admin.export("?from_sequence=7")) == verify.PART
