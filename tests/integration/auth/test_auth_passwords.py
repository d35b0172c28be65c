"""Changing the password, and the list of sessions."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import text

from heartguard.database import Database
from heartguard.tokens import Tokens
from heartguard.valkey import REVOKED_SESSION

EMAIL = "user@hg.io"
PASSWORD = "Secret123!x"
NEW = "another long password"


@pytest.fixture
def token(json_api: Any) -> str:
    """A signed-in user's access token."""
    json_api.register(email=EMAIL)
    return str(json_api.signed_in(EMAIL)["access_token"])


def test_changing_the_password_ends_every_other_session(
    api: Any, token: str, tokens: Tokens, valkey: Redis, audited: list[tuple[str, str, str]]
) -> None:
    others = [api.signed_in(EMAIL) for _ in range(2)]
    renewed = api.refresh(others[0]["refresh_token"]).body
    admin = api.admin()
    answer = api.change_password(token, PASSWORD, NEW)
    assert (answer.status, answer.body) == (204, None)
    for pair in (*others, renewed):
        assert api.get("/auth/profile", pair["access_token"]).status == 401
        assert api.refresh(pair["refresh_token"]).status == 401
        assert valkey.exists(REVOKED_SESSION + tokens.verify(pair["access_token"]).sid)
    for living in (token, admin):
        assert api.get("/auth/profile", living).status == 200
        assert not valkey.exists(REVOKED_SESSION + tokens.verify(living).sid)
    assert api.login(EMAIL).code == "AUTH_001"
    assert api.login(EMAIL, NEW).status == 200
    assert ("PASSWORD_CHANGE", "2", "success") in audited


def test_a_wrong_current_password_is_not_taken_for_an_expired_token(
    api: Any, token: str, audited: list[tuple[str, str, str]]
) -> None:
    answer = api.change_password(token, "not the password", NEW)
    assert (answer.status, answer.code, answer.paths) == (422, "AUTH_422", ["/current_password"])
    assert "WWW-Authenticate" not in answer.headers
    assert ("PASSWORD_CHANGE", "2", "failure") in audited
    assert api.login(EMAIL).status == 200


def test_whoever_stole_a_token_cannot_guess_the_password_with_it(json_api: Any, token: str) -> None:
    answers = [json_api.change_password(token, f"guess {i}", NEW) for i in range(11)]
    assert [answer.status for answer in answers] == [422] * 10 + [429]
    assert answers[-1].code == "AUTH_004"
    assert json_api.change_password(token, PASSWORD, NEW).status == 429
    assert json_api.login(EMAIL).status == 200


@pytest.mark.parametrize("password", ["short", "password", "x" * 129])
def test_the_new_password_follows_the_rules(api: Any, token: str, password: str) -> None:
    answer = api.change_password(token, PASSWORD, password)
    assert (answer.status, answer.code, answer.paths) == (422, "AUTH_005", ["/new_password"])


def test_an_ended_session_changes_nothing(json_api: Any, token: str) -> None:
    json_api.logout(token)
    assert json_api.change_password(token, PASSWORD, NEW).status == 401
    assert json_api.get("/auth/sessions", token).status == 401
    assert json_api.delete(f"/auth/sessions/{uuid.uuid4()}", token).status == 401
    assert json_api.login(EMAIL).status == 200


def test_of_two_changes_at_once_one_holds(json_api: Any, token: str) -> None:
    wanted = [f"{NEW} {i}" for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda new: json_api.change_password(token, PASSWORD, new).status, wanted))
    assert sorted(answers) == [204, 422, 422, 422]
    assert json_api.login(EMAIL, wanted[answers.index(204)]).status == 200


def test_signing_in_with_the_old_password_meanwhile_leaves_no_session(
    json_api: Any, token: str, database: Database, tokens: Tokens
) -> None:
    with ThreadPoolExecutor(4) as pool:
        signing_in = [pool.submit(json_api.login, EMAIL) for _ in range(3)]
        assert pool.submit(json_api.change_password, token, PASSWORD, NEW).result(10).status == 204
        answers = [one.result(10) for one in signing_in]
    for answer in answers:
        if answer.status == 200:
            assert json_api.get("/auth/profile", answer.body["access_token"]).status == 401


def test_sessions_are_listed_newest_first(api: Any, token: str, tokens: Tokens) -> None:
    second = api.signed_in(EMAIL)["access_token"]
    sessions = api.get("/auth/sessions", token).body["sessions"]
    assert [session["id"] for session in sessions] == [tokens.verify(one).sid for one in (second, token)]
    assert [session["current"] for session in sessions] == [False, True]
    assert {(session["ip"], session["user_agent"]) for session in sessions} == {("192.0.2.7", "a device")}
    assert all(session["created_at"] <= session["last_used_at"] for session in sessions)


def test_a_refresh_shows(json_api: Any, token: str, database: Database) -> None:
    pair = json_api.signed_in(EMAIL)
    json_api.refresh(pair["refresh_token"])
    newest, _ = json_api.get("/auth/sessions", token).body["sessions"]
    assert newest["last_used_at"] > newest["created_at"]


def test_only_living_sessions_are_listed(json_api: Any, token: str, database: Database) -> None:
    for _ in range(3):
        last = json_api.signed_in(EMAIL)
    json_api.logout(last["access_token"])
    with database.transaction() as tx:
        for sql in (
            "UPDATE heartguard_core.sessions SET access_expires_at = now() - interval '1 hour'",
            "DELETE FROM heartguard_core.refresh_tokens WHERE session_id IN (SELECT id FROM heartguard_core.sessions"
            " WHERE ended_at IS NULL ORDER BY created_at DESC LIMIT 1)",
        ):
            tx.execute(text(sql))
    assert len(json_api.get("/auth/sessions", token).body["sessions"]) == 2


def test_a_session_from_an_odd_place_is_listed(app: Any, token: str, json_api: Any, speak: Any) -> None:
    app.test_client().post(
        "/auth/login",
        json={"email": EMAIL, "password": PASSWORD},
        headers={"X-Forwarded-For": "nowhere", "User-Agent": "a\x01\x7f\x85b"},
    )
    for fmt in ("json", "xml"):
        newest = speak(app, fmt).get("/auth/sessions", token).body["sessions"][0]
        assert (newest["ip"], newest["user_agent"]) == ("", "ab")


def test_ending_a_session(api: Any, token: str, tokens: Tokens, audited: list[tuple[str, str, str]]) -> None:
    lost, kept = api.signed_in(EMAIL), api.signed_in(EMAIL)
    path = f"/auth/sessions/{tokens.verify(lost['access_token']).sid}"
    assert [api.delete(path, token).status for _ in range(2)] == [204, 204]
    assert ("SESSION_END", "2", "success") in audited
    assert api.get("/auth/profile", lost["access_token"]).status == 401
    assert api.refresh(lost["refresh_token"]).status == 401
    assert api.get("/auth/profile", kept["access_token"]).status == 200
    assert len(api.get("/auth/sessions", token).body["sessions"]) == 2


def test_the_own_session_can_be_ended(json_api: Any, token: str, tokens: Tokens) -> None:
    assert json_api.delete(f"/auth/sessions/{tokens.verify(token).sid}", token).status == 204
    assert json_api.get("/auth/profile", token).status == 401


def test_anothers_session_is_not_there(api: Any, token: str, tokens: Tokens) -> None:
    admin = api.admin()
    for caller, other in ((token, admin), (admin, token)):
        answer = api.delete(f"/auth/sessions/{tokens.verify(other).sid}", caller)
        assert (answer.status, answer.code) == (404, "AUTH_404")
        assert api.get("/auth/profile", other).status == 200


@pytest.mark.parametrize("name", ["5d0a8c5e-8f39-4f0e-9d8b-0b1c2d3e4f50", "1", "x", "%20", "0" * 36, "null"])
def test_what_is_no_session_is_not_there(api: Any, token: str, name: str) -> None:
    assert api.delete(f"/auth/sessions/{name}", token).status == 404


def test_the_audit_trail_names_who_did_it(json_api: Any, tokens: Tokens, audited: list[tuple[str, str, str]]) -> None:
    json_api.register(email=EMAIL)
    pair = json_api.signed_in(EMAIL)
    json_api.refresh(pair["refresh_token"])
    json_api.login(EMAIL, "not the password")
    json_api.login("nobody@hg.io")
    json_api.register(json_api.admin(), email="other@hg.io")
    assert audited == [
        ("REGISTER", "service:auth", "success"),
        ("REGISTER", "2", "success"),
        ("LOGIN", "2", "success"),
        ("TOKEN_REFRESH", "2", "success"),
        ("LOGIN_FAILED", "2", "failure"),
        ("LOGIN_FAILED", "anonymous", "failure"),
        ("LOGIN", "1", "success"),
        ("REGISTER", "1", "success"),
    ]
