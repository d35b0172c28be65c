"""Isolation is held twice: each check that the service makes is taken out, and PostgreSQL still refuses.

An admin of one organization goes for another's events by every route, and by each statement that reads the trail or
adds to it, with the other's organization in it. Nothing of it may be read, and not one of its rows may change. The last
test takes PostgreSQL's part away instead, and sees that the attacks then do get through: they are no blanks.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, text

from heartguard import dispatch
from heartguard.audit.chain import START, Checkpoint
from heartguard.database import Database
from services.audit.src import db, db_read

from ..sabotage import CANARY, conditions, got_through, held, take_out
from .conftest import Caller

MODULES = dict.fromkeys(
    ("services.audit.src.db", "services.audit.src.db_read"), re.compile(r"(?:WHERE|AND) ((?:c\.)?org_id = :org_id)")
)
TABLES = ("audit_chains", "audit_events", "audit_checkpoints", "audit_archives", "audit_intents")
LIMIT = 2**62


@dataclass
class Theatre:
    attacker: Caller
    victim: Caller
    database: Database
    superuser: Any

    def rows(self) -> Mapping[str, list[Any]]:
        with self.superuser.transaction() as tx:
            query = "SELECT t::text FROM heartguard_core.{} t WHERE org_id = :org ORDER BY 1"
            org = {"org": self.victim.org_id}
            return {table: list(tx.execute(text(query.format(table)), org).all()) for table in TABLES}

    def attack(self) -> list[str]:
        head = self.head()
        leaks = [
            path
            for path in (
                "/audit/events?limit=200",
                f"/audit/events?actor={CANARY}",
                "/audit/verify",
                "/audit/export",
                "/audit/export?from_sequence=2&to_sequence=3",
            )
            if any(secret in self.attacker.send("GET", path).text for secret in (CANARY, head))
        ]
        return leaks + got_through(self.database, self.attacker.org_id, self.steps())

    def head(self) -> str:
        with self.superuser.transaction() as tx:
            query = "SELECT encode(hash, 'hex') FROM heartguard_core.audit_chains WHERE org_id = :org"
            return str(tx.execute(text(query), {"org": self.victim.org_id}).scalar_one())

    def steps(self) -> Iterator[tuple[str, Callable[[Connection], Any]]]:
        """What the service's statements find and change, with the victim's organization in the attacker's transaction,
        and with the attacker's.
        """
        victim, now = self.victim.org_id, datetime.now(UTC)
        for org in (victim, self.attacker.org_id):
            yield "page", lambda tx, org=org: self.seen(db_read.page(tx, org, db_read.Filters(), 200))
            yield "links", lambda tx, org=org: self.seen(db_read.links(tx, org, 0, LIMIT, 200))
            yield "checkpoints", lambda tx, org=org: len(db_read.checkpoints(tx, org, 0, LIMIT)) > 0
            yield "extent", lambda tx, org=org: db_read.extent(tx, org, START).sequence == EVENTS
            yield "last_sequence", lambda tx, org=org: db_read.last_sequence(tx, org) >= EVENTS
            yield "move_head", lambda tx, org=org: db.move_head(tx, org, 1, START, now)
        checkpoint = Checkpoint(hash="00" * 32, key_id="k", org_id=victim, sequence=1, signed_at=now.isoformat())
        yield "insert_checkpoint", lambda tx: db.insert_checkpoint(tx, checkpoint, bytes(64))
        row = db.Row(99, str(NO_ID), "1", "A", "s", "success", now.isoformat(), now.isoformat(), None, "{}", START)
        yield "insert_events", lambda tx: db.insert_events(tx, victim, [row])
        yield "open_intents", lambda tx: db.open_intents(tx, [(str(NO_ID), victim, "{}", str(NO_ID))])
        yield "take_stale_intents", lambda tx: db.take_stale_intents(tx, 0, 10_000)
        yield "unsigned_chains", lambda tx: victim in db.unsigned_chains(tx, 10_000)
        for table in TABLES:
            yield (
                table,
                lambda tx, table=table: tx.execute(
                    text(f"SELECT FROM heartguard_core.{table} WHERE org_id = :org"), {"org": victim}
                ).all(),
            )

    def seen(self, rows: Any) -> bool:
        return any(CANARY in str(tuple(row)) for row in rows)


EVENTS = 7
NO_ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def theatre(admin: Caller, fill: Callable[..., None], recorder: Any, database: Database, superuser: Any) -> Theatre:
    victim = Caller(admin.app, 1_000_000 + admin.org_id)
    fill(victim, EVENTS - 1, request_id=CANARY)
    fill(victim, 1, request_id=CANARY, outcome="intent")
    with database.transaction() as tx:
        recorder.sign(tx, victim.org_id)
        db.lock_chain(tx, admin.org_id, START)
    with superuser.transaction() as tx:
        tx.execute(
            text("UPDATE heartguard_core.audit_chains SET signed = signed - 1 WHERE org_id = :org"),
            {"org": victim.org_id},
        )
    return Theatre(admin, victim, database, superuser)


def test_with_every_check_in_place(theatre: Theatre) -> None:
    with held(theatre):
        pass


@pytest.mark.parametrize(("module", "condition"), list(conditions(MODULES)))
def test_without_a_condition(theatre: Theatre, monkeypatch: pytest.MonkeyPatch, module: str, condition: str) -> None:
    with held(theatre):
        take_out(monkeypatch, module, MODULES[module], condition)


def test_without_any_condition(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(theatre):
        for module, pattern in MODULES.items():
            take_out(monkeypatch, module, pattern)


def test_without_asking_who_may(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(theatre):
        monkeypatch.setattr(dispatch, "authorize", lambda *_: None)


def test_without_postgresqls_part_the_attacks_get_through(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    before = theatre.rows()
    take_out(monkeypatch, "services.audit.src.db_read", MODULES["services.audit.src.db_read"])
    switch(theatre, "DISABLE")
    try:
        leaks = theatre.attack()
    finally:
        switch(theatre, "ENABLE")
    assert {"/audit/events?limit=200", "page", "checkpoints", "take_stale_intents", *TABLES[:3]} <= set(leaks)
    assert theatre.rows() != before


def switch(theatre: Theatre, how: str) -> None:
    with theatre.superuser.transaction() as tx:
        for table in TABLES:
            tx.execute(text(f"ALTER TABLE heartguard_core.{table} {how} ROW LEVEL SECURITY"))
