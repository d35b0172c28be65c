"""Isolation is held twice: each check that the code makes is taken out, and PostgreSQL still refuses.

An admin of one organization goes for another's people by every route, with the own token and with tokens in which
somebody else's ids got mixed up with the own organization, as a mistake in the code could mix them. Nothing of the
other organization may be read, and not one of its rows may change. The last test takes PostgreSQL's part away instead,
and sees that the attacks then do get through: they are no blanks.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import pytest
from sqlalchemy import text

from heartguard import dispatch, revocations
from heartguard.database import Database

from ..sabotage import CANARY, conditions, held, source_of, sql_modules, take_out
from .conftest import Person, Site

CONDITION = re.compile(r"\b(?:WHERE|AND|ON)\s+((?:\w+\.)?(?:org_id|user_id|session_id|id|jti)\s*=\s*:\w+)")
HOLDING_SQL = [*chain.from_iterable(map(sql_modules, ("auth", "organization", "user"))), "heartguard.revocations"]
MODULES = {module: CONDITION for module in HOLDING_SQL if CONDITION.search(source_of(module))}


# The attack


@dataclass
class Theatre:
    """Two organizations: the attacker's and the victim's."""

    site: Site
    attacker: Person
    victim: Person

    def rows(self) -> Mapping[str, list[Any]]:
        """All that the victim's organization has."""
        owned = {
            "organizations": "id",
            **dict.fromkeys(("users", "user_preferences", "sessions", "refresh_tokens"), "org_id"),
        }
        with self.site.superuser.transaction() as tx:
            return {
                table: tx.execute(
                    text(f"SELECT t::text FROM heartguard_core.{table} t WHERE {column} = :org ORDER BY 1"),
                    {"org": self.victim.org_id},
                ).all()
                for table, column in owned.items()
            }

    def attack(self) -> list[str]:
        """Everything that was read of the victim's, by the request that got it."""
        victim, attacker = self.victim, self.attacker
        mixed = [
            attacker,
            replace(attacker, id=victim.id),
            replace(attacker, sid=victim.sid),
            replace(attacker, id=victim.id, sid=victim.sid),
        ]
        leaks = []
        for person in mixed:
            for method, path, body in self.requests():
                answer = person.send(method, path, body)
                if CANARY in answer.text or victim.email in answer.text:
                    leaks.append(f"{method} {path}")
        return leaks

    def requests(self) -> list[tuple[str, str, Any]]:
        victim = self.victim
        return [
            ("GET", "/users/me", None),
            ("PUT", "/users/me", {"first_name": "Mallory", "preferences": {"mine": True}}),
            ("GET", "/users?limit=200", None),
            ("GET", f"/users/{victim.id}", None),
            ("PUT", f"/users/{victim.id}/role", {"role": "user"}),
            ("DELETE", f"/users/{victim.id}", None),
            ("GET", "/organization", None),
            ("GET", "/organization/policies", None),
            ("PUT", "/organization", {"name": "Mallory's", "policies": "none"}),
            ("GET", "/auth/profile", None),
            ("GET", "/auth/sessions", None),
            ("DELETE", f"/auth/sessions/{victim.sid}", None),
            ("PUT", "/auth/password", {"current_password": "wrong password", "new_password": "another password"}),
            ("POST", "/auth/logout", None),
        ]


@pytest.fixture
def theatre(site: Site) -> Theatre:
    victims = site.organization(f"{CANARY} Clinic")
    victim = site.person(victims, "admin", first_name=CANARY)
    site.person(victims, "admin", first_name=CANARY)  # else the last admin would be spared for being the last
    site.sign_in(victim)
    assert victim.put("/users/me", {"preferences": {"animal": CANARY}}).status_code == 200
    attackers = site.organization("Mallory's")
    site.person(attackers, "admin")
    return Theatre(site, site.person(attackers, "admin"), victim)


def test_with_every_check_in_place(theatre: Theatre) -> None:
    with held(theatre):
        pass


@pytest.mark.parametrize(("module", "condition"), list(conditions(MODULES)))
def test_without_a_condition(theatre: Theatre, monkeypatch: pytest.MonkeyPatch, module: str, condition: str) -> None:
    with held(theatre):
        take_out(monkeypatch, module, CONDITION, condition)


def test_without_any_condition(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(theatre):
        for module in MODULES:
            take_out(monkeypatch, module, CONDITION)


def anybody(*_: Any) -> None:
    """In the place of a check."""


OTHERS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "policy.authorize": lambda patch: patch.setattr(dispatch, "authorize", anybody),
    "If-Match": lambda patch: patch.setattr("heartguard.preconditions.IfMatch.check", anybody),
    "the organization given to transaction": lambda patch: patch.setattr(
        Database, "transaction", lambda self, _org_id=None, whole=Database.transaction: whole(self)
    ),
    "what is shown to a single statement": lambda patch: patch.setattr(
        Database, "at_once", lambda self, *given, whole=Database.at_once, **_: whole(self, *given)
    ),
    "auth: the session is the caller's": lambda patch: patch.setattr(
        "services.auth.src.db_sessions.owns_session", lambda *_: True
    ),
    "auth: the caller's session lives": lambda patch: patch.setattr(
        "services.auth.src.db_sessions.is_live", lambda *_: True
    ),
    "user: the caller is a living admin": lambda patch: patch.setattr(
        "services.user.src.db.is_signed_in", lambda *_: True
    ),
    "user: the user is one of the organization's": lambda patch: patch.setattr(
        "services.user.src.db.lock", lambda *_: True
    ),
}
"""Checks that are no conditions in SQL."""


@pytest.mark.parametrize("check", OTHERS)
def test_without(theatre: Theatre, monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    with held(theatre):
        OTHERS[check](monkeypatch)


def test_ending_sessions_of_another_organizations_user_ends_none(theatre: Theatre) -> None:
    database: Database = theatre.site.apps["user"].extensions["heartguard.database"]
    before = theatre.rows()
    with database.transaction(theatre.attacker.org_id) as tx:
        assert revocations.end_sessions(tx, theatre.victim.id) == []
    assert theatre.rows() == before


TABLES = ("organizations", "users", "user_preferences", "sessions", "refresh_tokens")


def test_without_postgresqls_part_the_attacks_get_through(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    before = theatre.rows()
    take_out(monkeypatch, "services.user.src.db", CONDITION, "u.org_id = :org_id", "org_id = :org_id")
    switch_row_level_security(theatre, "DISABLE")
    try:
        leaks = theatre.attack()
    finally:
        switch_row_level_security(theatre, "ENABLE")
    assert {"GET /users?limit=200", f"GET /users/{theatre.victim.id}"} <= set(leaks)
    assert theatre.rows() != before


def switch_row_level_security(theatre: Theatre, how: str) -> None:
    with theatre.site.superuser.transaction() as tx:
        for table in TABLES:
            tx.execute(text(f"ALTER TABLE heartguard_core.{table} {how} ROW LEVEL SECURITY"))
