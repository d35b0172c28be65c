"""Isolation is held twice: each check that the service makes is taken out, and PostgreSQL still refuses.

An admin of one organization goes for another's files by every route, with the own token and with one in which the
other's user got mixed up, and by each step of the service's with the other's item in it. Nothing of the other
organization may be read, and not one of its rows and objects may change. The last test takes PostgreSQL's part away
instead, and sees that the attacks then do get through: they are no blanks.
"""

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from heartguard import dispatch
from heartguard.database import Database
from services.media.src import db, listing, media
from services.media.src.names import ObjectName

from ..sabotage import CANARY, conditions, got_through, held, take_out
from .conftest import Caller, objects_of

DB = "services.media.src.db"
CONDITION = re.compile(r"(?:WHERE|AND) ((?:id|org_id|owner_id) = :\w+)")


@dataclass
class Theatre:
    attacker: Caller
    victim: Caller
    database: Database
    superuser: Any

    def __post_init__(self) -> None:
        self.id = self.victim.stored(file_name=f"{CANARY}.png")
        self.attacker.stored(file_name="mallory.png")
        self.items = {state: self.item(state) for state in (db.PENDING, db.DELETING, db.LOST)}

    def item(self, state: str) -> db.NewItem:
        """One of the victim's on its way."""
        item = db.NewItem(
            id=uuid.uuid4(), org_id=self.victim.org_id, owner_id=self.victim.user_id, file_name=f"{CANARY}.png",
            content_type="image/png", size=70, sha256=bytes(32),
        )  # fmt: skip
        with self.database.transaction(self.victim.org_id) as tx:
            db.insert(tx, item)
        with self.superuser.transaction() as tx:
            changed = {"id": item.id, "state": state}
            tx.execute(text("UPDATE heartguard_core.media_items SET state = :state WHERE id = :id"), changed)
        return item

    def rows(self) -> Mapping[str, list[Any]]:
        with self.superuser.transaction() as tx:
            query = "SELECT m::text FROM heartguard_core.media_items m WHERE org_id = :org ORDER BY 1"
            rows = tx.execute(text(query), {"org": self.victim.org_id}).all()
        return {"media_items": list(rows), "objects": list(objects_of(self.victim.app, self.victim.org_id))}

    def attack(self) -> list[str]:
        leaks = []
        mixed = [self.attacker.as_user(self.victim.user_id, role) for role in ("user", "admin")]
        for who in (self.attacker, *mixed):
            for method, path in self.requests():
                answer = who.send(method, path)
                if CANARY in answer.text or self.id in answer.text:
                    leaks.append(f"{method} {path}")
        return leaks + got_through(self.database, self.attacker.org_id, self.steps())

    def requests(self) -> Iterator[tuple[str, str]]:
        yield "GET", "/media/items?limit=200"
        yield "GET", f"/media/items?owner_id={self.victim.user_id}"
        yield "GET", f"/media/items/{self.id}"
        yield "GET", f"/media/items/{self.id}/download"
        for id_ in (self.id, *(item.id for item in self.items.values())):
            yield "DELETE", f"/media/items/{id_}"

    def steps(self) -> Iterator[tuple[str, Callable[[Any], Any]]]:
        """What the service does of its own, for once with the victim's items in the attacker's transaction."""
        pending, deleting, lost = self.items.values()
        yield "mark_stored", lambda tx: self.is_victims(db.mark_stored(tx, pending))
        for item, state in ((pending, db.PENDING), (deleting, db.DELETING), (lost, db.LOST)):
            known = db.Known(id=item.id, name=item.name, state=state)
            yield f"lock {state}", lambda tx, known=known: db.lock(tx, known)
            yield f"change {state}", lambda tx, known=known: db.change_state(tx, known, db.STORED)
        own = self.attacker.org_id
        for org_id in (self.victim.org_id, own):
            yield "find", lambda tx, org=org_id: self.is_victims(db.find(tx, org, uuid.UUID(self.id), None))
            yield "mark_deleting", lambda tx, org=org_id: self.is_victims(db.mark_deleting(tx, org, uuid.UUID(self.id)))
            for item in self.items.values():
                name = ObjectName.of(org_id, item.owner_id, item.id, item.file_name)
                yield "forget", lambda tx, name=name: db.forget(tx, name)

    def is_victims(self, found: Any) -> bool:
        return found is not None and found.org_id == self.victim.org_id


@pytest.fixture
def theatre(local: Flask, org: int, database: Database, superuser: Any) -> Theatre:
    return Theatre(Caller(local, org), Caller(local, 1_000_000 + org, user_id=9), database, superuser)


def test_with_every_check_in_place(theatre: Theatre) -> None:
    with held(theatre):
        pass


@pytest.mark.parametrize(("module", "condition"), list(conditions({DB: CONDITION})))
def test_without_a_condition(theatre: Theatre, monkeypatch: pytest.MonkeyPatch, module: str, condition: str) -> None:
    with held(theatre):
        take_out(monkeypatch, module, CONDITION, condition)


def test_without_any_condition(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(theatre):
        take_out(monkeypatch, DB, CONDITION)


OTHERS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "policy.authorize": lambda patch: patch.setattr(dispatch, "authorize", lambda *_: None),
    "the organization given to transaction": lambda patch: patch.setattr(
        Database, "transaction", lambda self, _org_id=None, whole=Database.transaction: whole(self)
    ),
    "own_items_only": lambda patch: patch.setattr(media, "own_items_only", lambda _caller: None),
    "wanted_owner": lambda patch: patch.setattr(listing, "wanted_owner", lambda _caller, owner_id: owner_id),
}
"""Checks that are no conditions in SQL."""


@pytest.mark.parametrize("check", OTHERS)
def test_without(theatre: Theatre, monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    with held(theatre):
        OTHERS[check](monkeypatch)


def test_without_postgresqls_part_the_attacks_get_through(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    before = theatre.rows()
    take_out(monkeypatch, DB, CONDITION, "org_id = :org")
    switch = "ALTER TABLE heartguard_core.media_items {} ROW LEVEL SECURITY"
    with theatre.superuser.transaction() as tx:
        tx.execute(text(switch.format("DISABLE")))
    try:
        leaks = theatre.attack()
    finally:
        with theatre.superuser.transaction() as tx:
            tx.execute(text(switch.format("ENABLE")))
    assert {"GET /media/items?limit=200", f"GET /media/items/{theatre.id}", "mark_stored", "change lost"} <= set(leaks)
    assert theatre.rows() != before
