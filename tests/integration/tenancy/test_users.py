"""The user service: oneself, the list, and what admins do to others."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from redis import Redis
from sqlalchemy import text

from heartguard.audit.event import decode
from heartguard.revocations import RevocationList
from heartguard.valkey import connect

from ..callers import code, details
from .conftest import Person, Site

MANY = {f"key{n}": n for n in range(50)}


def test_one_sees_and_changes_oneself(site: Site, org: int) -> None:
    user = site.person(org)
    me = user.get("/users/me").json
    assert me is not None
    assert {name: me[name] for name in ("id", "email", "role", "org_id", "preferences")} == {
        "id": user.id,
        "email": user.email,
        "role": "user",
        "org_id": org,
        "preferences": {},
    }
    assert "first_name" not in me
    changed = user.put("/users/me", {"first_name": "Ana", "preferences": {"lang": "es", "beats": 72, "dark": True}})
    assert changed.status_code == 200
    assert changed.json["preferences"] == {"lang": "es", "beats": 72, "dark": True}  # type: ignore[index]
    again = user.put("/users/me", {"last_name": "García"}).json
    assert again is not None
    assert (again["first_name"], again["last_name"]) == ("Ana", "García")
    assert again["preferences"] == {"lang": "es", "beats": 72, "dark": True}
    replaced = user.put("/users/me", {"preferences": {"ratio": 0.5}}).json
    assert replaced is not None
    assert replaced["preferences"] == {"ratio": 0.5}
    assert user.get("/users/me").json == replaced
    assert user.put("/users/me", {"preferences": {}}).json["preferences"] == {}  # type: ignore[index]


def test_the_example_of_the_contract(site: Site, org: int) -> None:
    body = b"<UserUpdate><preferences><lang>es</lang></preferences></UserUpdate>"
    answer = site.person(org).put("/users/me", body, Accept="application/xml")
    root = etree.fromstring(answer.data)
    assert (root.tag, root.findtext("preferences/lang")) == ("User", "es")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, ""),
        ({"first_name": " "}, "/first_name"),
        ({"role": "admin"}, "/role"),
        ({"email": "new@hg.io"}, "/email"),
        ({"preferences": {**MANY, "one": "more"}}, "/preferences"),
        ({"preferences": {"a/b": "x" * 1025}}, "/preferences/a~1b"),
        ({"preferences": {"accents": "é" * 513}}, "/preferences/accents"),
        ({"preferences": {"list": []}}, "/preferences/list"),
        ({"preferences": {"nothing": None}}, "/preferences/nothing"),
        ({"preferences": {"": "no name"}}, "/preferences/"),
    ],
)
def test_wrong_changes_are_named(site: Site, org: int, body: dict[str, Any], path: str) -> None:
    user = site.person(org)
    answer = user.put("/users/me", body)
    assert answer.status_code == 422
    assert list(details(answer)) == [path]
    assert user.get("/users/me").json["preferences"] == {}  # type: ignore[index]


def test_preferences_may_be_as_large_as_stated(site: Site, org: int) -> None:
    largest = {f"{n:02}" + "é" * 98: "é" * 512 for n in range(50)}
    user = site.person(org)
    assert user.put("/users/me", {"preferences": largest}).status_code == 200
    assert user.get("/users/me").json["preferences"] == largest  # type: ignore[index]


def test_one_is_changed_only_as_one_was_read(site: Site, org: int) -> None:
    user = site.person(org)
    etag = user.get("/users/me").headers["ETag"]
    assert user.get("/users/me", If_None_Match=etag).status_code == 304
    at_once = threading.Barrier(2)

    def change(name: str) -> int:
        at_once.wait(10)
        return user.put("/users/me", {"preferences": {"name": name}}, If_Match=etag).status_code

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(change, ["one", "two"])) == [200, 412]


def test_admins_see_their_own_people(site: Site, org: int, admin: Person) -> None:
    user, stranger = site.person(org), site.person(site.organization())
    found = admin.get(f"/users/{user.id}")
    assert found.status_code == 200
    assert found.json == user.get("/users/me").json
    assert admin.get(f"/users/{user.id}", If_None_Match=found.headers["ETag"]).status_code == 304
    for path in (stranger.id, 999_999, 2**31 - 1, 2**31, 10**30, "abc", "-1"):
        assert admin.get(f"/users/{path}").status_code == 404
    for role in ("user", "manager"):
        assert site.person(org, role).get(f"/users/{user.id}").status_code == 403


# The list


def walk(manager: Person, query: str) -> list[list[int]]:
    pages, path = [], f"/users?{query}"
    while path:
        answer = manager.get(path)
        assert answer.status_code == 200, answer.text
        assert answer.json is not None
        pages.append([user["id"] for user in answer.json["items"]])
        assert ("next_cursor" in answer.json) == ("Link" in answer.headers)
        path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
        assert not path or f"cursor={answer.json['next_cursor']}" in path
    return pages


def test_the_list_is_paged_newest_first(site: Site, org: int) -> None:
    site.person(site.organization())
    manager = site.person(org, "manager")
    ids = [manager.id, *(site.person(org).id for _ in range(6))][::-1]
    assert walk(manager, "limit=3") == [ids[:3], ids[3:6], ids[6:]]
    assert walk(manager, "limit=7") == [ids]
    assert walk(manager, "") == [ids]
    assert site.person(org).get("/users").status_code == 403


def test_the_list_is_stable_while_people_come_and_go(site: Site, org: int, admin: Person) -> None:
    people = [site.person(org) for _ in range(5)]
    first = admin.get("/users?limit=2").json
    assert first is not None
    site.person(org)
    assert admin.delete(f"/users/{people[3].id}").status_code == 204
    rest = admin.get(f"/users?limit=200&cursor={first['next_cursor']}").json
    assert rest is not None
    shown = [user["id"] for user in first["items"] + rest["items"]]
    assert shown == [*(person.id for person in people[::-1]), admin.id]


NONE = ["", "%00", "é", "!!!!", "a", "bnVsbA", "LTE", "MWU5", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5"]
"""Cursors that no page came with: among them ``null``, ``-1``, ``1e9`` and a number without end."""


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=201", "limit=x", "limit=1&limit=2", "page=2", *(f"cursor={text}" for text in NONE)],
)
def test_a_wrong_question_is_a_violation(admin: Person, query: str) -> None:
    assert admin.get(f"/users?{query}").status_code == 422


def test_the_list_in_xml(site: Site, org: int) -> None:
    manager = site.person(org, "manager")
    site.person(org)
    root = etree.fromstring(manager.get("/users?limit=1", Accept="application/xml").data)
    assert [child.tag for child in root] == ["items", "next_cursor"]
    assert len(root.findall("items/item")) == 1


# Other roles, and the end


def is_dead(site: Site, valkey: Redis, sid: str) -> bool:
    ended = site.one("SELECT ended_at FROM heartguard_core.sessions WHERE id = :sid", sid=sid)[0]
    revoked = site.one("SELECT FROM heartguard_core.revoked_tokens WHERE kind = 'sid' AND id = :sid", sid=sid)
    known = valkey.exists(f"revoked:sid:{sid}")
    assert (ended is not None) == (revoked is not None) == bool(known)
    return bool(known)


def test_another_role_ends_all_sessions(site: Site, org: int, admin: Person, valkey: Redis) -> None:
    user, bystander = site.person(org), site.person(org)
    second = site.sign_in(user)
    changed = admin.put(f"/users/{user.id}/role", {"role": "manager"})
    assert changed.status_code == 200
    assert changed.json["role"] == "manager"  # type: ignore[index]
    assert is_dead(site, valkey, user.sid)
    assert is_dead(site, valkey, second)
    assert not is_dead(site, valkey, bystander.sid)
    assert not is_dead(site, valkey, admin.sid)


def test_the_same_role_ends_none(site: Site, org: int, admin: Person, valkey: Redis) -> None:
    user = site.person(org)
    before = user.get("/users/me")
    assert admin.put(f"/users/{user.id}/role", {"role": "user"}).json == before.json
    assert not is_dead(site, valkey, user.sid)


def test_the_trail_says_who_was_given_which_role_even_the_same(site: Site, org: int, admin: Person) -> None:
    user = site.person(org)
    for role in ("manager", "manager"):
        assert admin.put(f"/users/{user.id}/role", {"role": role}).status_code == 200
    with site.superuser.transaction() as tx:
        rows = tx.execute(text("SELECT event FROM heartguard_core.audit_outbox ORDER BY id")).scalars()
        events = [event for event in map(decode, map(str.encode, rows)) if event.org_id == org]
    assert [(event.action, event.actor, event.payload) for event in events] == [
        ("ROLE_CHANGE", str(admin.id), {"user_id": user.id, "role": "manager", "before": before})
        for before in ("user", "manager")
    ]


def test_a_role_is_changed_only_as_it_was_read(site: Site, org: int, admin: Person) -> None:
    user = site.person(org)
    etag = admin.get(f"/users/{user.id}").headers["ETag"]
    assert admin.put(f"/users/{user.id}/role", {"role": "manager"}, If_Match='"stale"').status_code == 412
    assert admin.put(f"/users/{user.id}/role", {"role": "manager"}, If_Match=etag).status_code == 200
    assert admin.put(f"/users/{user.id}/role", {"role": "user"}, If_Match=etag).status_code == 412


def test_whoever_is_removed_is_gone_and_the_address_is_free(site: Site, org: int, admin: Person, valkey: Redis) -> None:
    user = site.person(org)
    user.put("/users/me", {"preferences": {"kept": True}})
    assert admin.delete(f"/users/{user.id}").status_code == 204
    assert is_dead(site, valkey, user.sid)
    assert admin.get(f"/users/{user.id}").status_code == 404
    assert admin.delete(f"/users/{user.id}").status_code == 404
    assert admin.put(f"/users/{user.id}/role", {"role": "admin"}).status_code == 404
    assert user.get("/users/me").status_code == 401
    assert user.put("/users/me", {"first_name": "x"}).status_code == 401
    kept = site.one("SELECT email, deleted_at FROM heartguard_core.users WHERE id = :id", id=user.id)
    assert kept.email == user.email
    assert kept.deleted_at is not None


def test_another_organizations_people_are_not_found(site: Site, admin: Person) -> None:
    stranger = site.person(site.organization(), "admin")
    before = stranger.get("/users/me").json
    assert admin.put(f"/users/{stranger.id}/role", {"role": "user"}).status_code == 404
    assert admin.delete(f"/users/{stranger.id}").status_code == 404
    assert stranger.get("/users/me").json == before


def test_only_admins_do_that(site: Site, org: int) -> None:
    user = site.person(org)
    for role in ("user", "manager"):
        other = site.person(org, role)
        assert other.put(f"/users/{user.id}/role", {"role": "admin"}).status_code == 403
        assert other.delete(f"/users/{user.id}").status_code == 403


@pytest.mark.parametrize("body", [{}, {"role": "service"}, {"role": "root"}, {"role": "user", "org_id": 1}])
def test_a_role_that_there_is_not_is_a_violation(site: Site, org: int, admin: Person, body: dict[str, Any]) -> None:
    user = site.person(org)
    assert admin.put(f"/users/{user.id}/role", body).status_code == 422


def test_the_last_admin_stays(site: Site, org: int, admin: Person) -> None:
    site.person(site.organization(), "admin")
    for answer in (admin.put(f"/users/{admin.id}/role", {"role": "user"}), admin.delete(f"/users/{admin.id}")):
        assert (answer.status_code, code(answer)) == (409, "USER_001")
    assert admin.put(f"/users/{admin.id}/role", {"role": "admin"}).status_code == 200
    assert admin.get("/users/me").json["role"] == "admin"  # type: ignore[index]


def test_one_of_two_admins_may_step_back_or_leave(site: Site, org: int, admin: Person, valkey: Redis) -> None:
    second, third = site.person(org, "admin"), site.person(org, "admin")
    assert second.put(f"/users/{second.id}/role", {"role": "user"}).json["role"] == "user"  # type: ignore[index]
    assert is_dead(site, valkey, second.sid)
    assert third.delete(f"/users/{third.id}").status_code == 204
    assert is_dead(site, valkey, third.sid)
    assert admin.delete(f"/users/{admin.id}").status_code == 409


@pytest.mark.parametrize("how", ["demote", "delete", "step back"])
def test_of_two_admins_who_turn_on_each_other_one_stays(site: Site, how: str) -> None:
    for _ in range(4):
        org = site.organization()
        pair = [site.person(org, "admin"), site.person(org, "admin")]
        at_once = threading.Barrier(2)

        def act(who: Person, whom: Person, at_once: threading.Barrier = at_once) -> int:
            at_once.wait(10)
            if how == "delete":
                return who.delete(f"/users/{whom.id}").status_code
            target = who if how == "step back" else whom
            return who.put(f"/users/{target.id}/role", {"role": "user"}).status_code

        with ThreadPoolExecutor(2) as pool:
            statuses = sorted(pool.map(act, pair, pair[::-1]))
        assert statuses in ([200, 409], [204, 409])
        left = site.one(
            "SELECT count(*) FROM heartguard_core.users WHERE org_id = :org AND role = 'admin' AND deleted_at IS NULL",
            org=org,
        )
        assert left == (1,)


def test_an_admin_who_is_none_any_more_does_nothing(site: Site, org: int, admin: Person) -> None:
    former, user = site.person(org, "admin"), site.person(org)
    assert admin.put(f"/users/{former.id}/role", {"role": "manager"}).status_code == 200
    assert former.put(f"/users/{user.id}/role", {"role": "admin"}).status_code == 401
    assert former.delete(f"/users/{user.id}").status_code == 401
    assert user.get("/users/me").json["role"] == "user"  # type: ignore[index]


@pytest.mark.usefixtures("without_housekeeping")
def test_what_is_not_known_to_every_gateway_is_not_called_done(
    site: Site, org: int, admin: Person, monkeypatch: pytest.MonkeyPatch, valkey: Redis, short_folder: Path
) -> None:
    """An address that does not resolve may be this service's trouble alone; one that refuses is everybody's."""
    user = site.person(org)
    lists = [
        RevocationList(connect("redis://nowhere.invalid:1")),
        RevocationList(connect(f"unix://{short_folder}/none")),
    ]
    working = RevocationList.announce

    def through(other: RevocationList) -> Any:
        return lambda _self, revoked: working(other, revoked)

    monkeypatch.setattr(RevocationList, "announce", through(lists[0]))
    uncertain = admin.put(f"/users/{user.id}/role", {"role": "manager"})
    assert uncertain.status_code == 503
    assert uncertain.headers["Retry-After"]
    assert admin.get(f"/users/{user.id}").json["role"] == "manager"  # type: ignore[index]
    monkeypatch.setattr(RevocationList, "announce", through(lists[1]))
    assert admin.put(f"/users/{user.id}/role", {"role": "manager"}).status_code == 200
    assert not valkey.exists(f"revoked:sid:{user.sid}")
    monkeypatch.undo()
    assert admin.put(f"/users/{user.id}/role", {"role": "manager"}).status_code == 200
    assert is_dead(site, valkey, user.sid)


def test_it_is_ready(site: Site) -> None:
    client = site.apps["user"].test_client()
    assert client.get("/users/ready").json["status"] == "ready"  # type: ignore[index]
    assert client.get("/users/health").status_code == 200
