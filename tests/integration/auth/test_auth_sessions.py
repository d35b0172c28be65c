"""Signing in, refreshing, signing out."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from argon2 import PasswordHasher
from redis import Redis
from sqlalchemy import text

from heartguard.database import Database
from heartguard.tokens import Tokens
from heartguard.valkey import REVOKED_SESSION
from services.auth.src import passwords

EMAIL = "user@hg.io"
PASSWORD = "Secret123!x"


@pytest.fixture
def user(json_api: Any) -> int:
    """A registered user's id."""
    return int(json_api.register(email=EMAIL).body["user_id"])


def query(database: Database, sql: str) -> list[Any]:
    with database.transaction() as tx:
        return list(tx.execute(text(sql)).all())


def execute(database: Database, sql: str) -> None:
    with database.transaction() as tx:
        tx.execute(text(sql))


def test_signing_in(api: Any, user: int, tokens: Tokens, database: Database) -> None:
    answer = api.login(EMAIL)
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert set(answer.body) == {"access_token", "refresh_token", "expires_in", "token_type"}
    assert (answer.body["expires_in"], answer.body["token_type"]) == (3600, "Bearer")
    access = tokens.verify(answer.body["access_token"])
    refresh = tokens.verify(answer.body["refresh_token"], "refresh")
    assert (access.sub, access.role, access.org_id, access.sid) == (str(user), "user", 1, refresh.sid)
    assert (access.exp - access.iat, refresh.exp - refresh.iat) == (3600, 1_209_600)
    ((sid, ip, user_agent),) = query(database, "SELECT id, host(ip), user_agent FROM heartguard_core.sessions")
    assert (str(sid), ip, user_agent) == (access.sid, "192.0.2.7", "a device")


def test_a_refresh_token_is_kept_only_as_a_hash(json_api: Any, user: int, database: Database) -> None:
    token = json_api.signed_in(EMAIL)["refresh_token"]
    (row,) = query(database, "SELECT t::text FROM heartguard_core.refresh_tokens t")
    assert token not in row[0]
    assert token.rpartition(".")[2] not in row[0]


def test_wrong_password_and_unknown_address_get_the_same_answer(api: Any, user: int) -> None:
    answers = [api.login(EMAIL, "not the password"), api.login("nobody@hg.io"), api.login(EMAIL, "")]
    for answer in answers:
        assert (answer.status, answer.code) == (401, "AUTH_001")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert len({str(answer.body).replace(answer.headers["X-Request-ID"], "") for answer in answers}) == 1


def test_signing_in_renews_an_outdated_hash(json_api: Any, user: int, database: Database) -> None:
    older = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    with database.transaction() as tx:
        tx.execute(text("UPDATE heartguard_core.users SET password_hash = :h WHERE id = :id"), {"h": older, "id": user})
    json_api.signed_in(EMAIL)
    ((renewed,),) = query(database, "SELECT password_hash FROM heartguard_core.users WHERE email = 'user@hg.io'")
    assert renewed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    json_api.signed_in(EMAIL)


def test_an_account_deleted_while_it_signs_in_does_not(
    json_api: Any, user: int, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete_meanwhile(_stored: str) -> bool:
        execute(database, "UPDATE heartguard_core.users SET deleted_at = now() WHERE email = 'user@hg.io'")
        return False

    monkeypatch.setattr(passwords, "outdated", delete_meanwhile)
    assert json_api.login(EMAIL).code == "AUTH_001"
    assert query(database, "SELECT count(*) FROM heartguard_core.sessions") == [(0,)]


def test_a_sign_in_beyond_the_two_hundredth_session_ends_the_longest_unused(
    json_api: Any, user: int, database: Database, valkey: Redis, eventually: Any
) -> None:
    first = json_api.signed_in(EMAIL)["access_token"]
    execute(
        database,
        "INSERT INTO heartguard_core.sessions"
        " (id, user_id, org_id, user_agent, last_used_at, access_expires_at, refresh_expires_at)"
        f" SELECT gen_random_uuid(), {user}, 1, 'n' || n, now() - n * interval '1 minute', now() + interval '1 hour',"
        " now() + interval '1 day' FROM generate_series(1, 250) n",
    )
    json_api.login(EMAIL, "not the password")
    assert query(database, "SELECT count(*) FROM heartguard_core.sessions WHERE ended_at IS NOT NULL") == [(0,)]
    newest = json_api.signed_in(EMAIL)["access_token"]
    sessions = json_api.get("/auth/sessions", newest).body["sessions"]
    assert len(sessions) == 200
    assert {session["user_agent"] for session in sessions} == {"a device", *(f"n{n}" for n in range(1, 199))}
    assert json_api.get("/auth/profile", first).status == 200
    ended = query(database, "SELECT id FROM heartguard_core.sessions WHERE ended_at IS NOT NULL")
    assert len(ended) == 52
    eventually(lambda: len(valkey.keys(REVOKED_SESSION + "*")) == 52)


def test_refreshing_gives_a_new_pair_of_the_same_session(api: Any, user: int, tokens: Tokens) -> None:
    first = api.signed_in(EMAIL)
    answer = api.refresh(first["refresh_token"])
    assert answer.status == 200
    assert set(answer.body) == set(first)
    second = answer.body
    assert second["access_token"] != first["access_token"]
    assert second["refresh_token"] != first["refresh_token"]
    assert tokens.verify(second["access_token"]).sid == tokens.verify(first["access_token"]).sid
    assert api.get("/auth/profile", second["access_token"]).status == 200
    assert api.refresh(second["refresh_token"]).status == 200


def test_refreshing_shows_the_role_of_now(json_api: Any, user: int, tokens: Tokens, database: Database) -> None:
    pair = json_api.signed_in(EMAIL)
    execute(database, "UPDATE heartguard_core.users SET role = 'manager' WHERE email = 'user@hg.io'")
    answer = json_api.refresh(pair["refresh_token"])
    assert tokens.verify(answer.body["access_token"]).role == "manager"


def test_a_deleted_user_refreshes_nothing(api: Any, user: int, database: Database) -> None:
    pair = api.signed_in(EMAIL)
    execute(database, "UPDATE heartguard_core.users SET deleted_at = now() WHERE email = 'user@hg.io'")
    assert api.refresh(pair["refresh_token"]).status == 401


def test_what_is_no_refresh_token_is_refused(api: Any, user: int, tokens: Tokens) -> None:
    pair = api.signed_in(EMAIL)
    sid = tokens.verify(pair["access_token"]).sid
    never_issued, _ = tokens.issue(sub=str(user), role="user", org_id=1, sid=sid, typ="refresh", seconds=60)
    for token in ("", "x", "a.b.c", pair["access_token"], pair["refresh_token"][:-2], never_issued, "[" * 4000):
        answer = api.refresh(token)
        assert (answer.status, answer.code) == (401, "AUTH_401")


def test_signing_out_ends_the_session_and_no_other(api: Any, user: int) -> None:
    one, other = api.signed_in(EMAIL), api.signed_in(EMAIL)
    newer = api.refresh(one["refresh_token"]).body
    answer = api.logout(newer["access_token"])
    assert (answer.status, answer.body) == (204, None)
    for token in (one["access_token"], newer["access_token"]):
        assert api.get("/auth/profile", token).status == 401
    for token in (one["refresh_token"], newer["refresh_token"]):
        assert api.refresh(token).status == 401
    assert api.get("/auth/profile", other["access_token"]).status == 200
    assert api.refresh(other["refresh_token"]).status == 200


def test_signing_out_twice_is_no_error(json_api: Any, user: int) -> None:
    token = json_api.signed_in(EMAIL)["access_token"]
    assert [json_api.logout(token).status for _ in range(2)] == [204, 204]


def test_refreshing_and_signing_out_at_once_leaves_nothing_alive(json_api: Any, user: int) -> None:
    for _ in range(5):
        pair = json_api.signed_in(EMAIL)
        with ThreadPoolExecutor(2) as pool:
            refreshed = pool.submit(json_api.refresh, pair["refresh_token"])
            assert pool.submit(json_api.logout, pair["access_token"]).result(10).status == 204
        if refreshed.result().status == 200:
            assert json_api.refresh(refreshed.result().body["refresh_token"]).status == 401
            assert json_api.get("/auth/profile", refreshed.result().body["access_token"]).status == 401


@pytest.mark.parametrize("forwarded", ["", "nonsense", "fe80::1%eth0", "2001:db8::1", "192.0.2.1, 10.0.0.1"])
def test_any_address_and_device_can_sign_in(app: Any, user: int, forwarded: str) -> None:
    answer = app.test_client().post(
        "/auth/login",
        json={"email": EMAIL, "password": PASSWORD},
        headers={"X-Forwarded-For": forwarded, "User-Agent": "é\0" * 400},
    )
    assert answer.status_code == 200
