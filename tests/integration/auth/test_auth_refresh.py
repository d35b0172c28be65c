"""A refresh token that comes twice: a retry gets the same successor, a thief ends the session."""

import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from heartguard.database import Database
from heartguard.keyring import rotate
from heartguard.settings import KeySettings, load
from heartguard.tokens import Tokens

EMAIL = "user@hg.io"
ROUNDS = int(os.environ.get("HEARTGUARD_REFRESH_ROUNDS", "8"))
"""How often many refresh one token at once. The long proof: 200."""
AT_ONCE = 32


@pytest.fixture
def pair(json_api: Any) -> dict[str, str]:
    """A signed-in user's tokens."""
    json_api.register(email=EMAIL)
    return dict(json_api.signed_in(EMAIL))


def execute(database: Database, sql: str) -> None:
    with database.transaction() as tx:
        tx.execute(text(sql))


def grow_older(database: Database, seconds: int) -> None:
    """Let the uses of all refresh tokens lie that much further back."""
    execute(database, f"UPDATE heartguard_core.refresh_tokens SET used_at = used_at - interval '{seconds} seconds'")


def test_a_retry_gets_the_very_same_pair(api: Any, pair: dict[str, str], database: Database) -> None:
    first = api.refresh(pair["refresh_token"])
    grow_older(database, 9)
    again = api.refresh(pair["refresh_token"])
    assert (again.status, again.body) == (200, first.body)
    assert api.get("/auth/profile", again.body["access_token"]).status == 200


def test_a_client_that_lost_the_answer_goes_on(api: Any, pair: dict[str, str]) -> None:
    lost = api.refresh(pair["refresh_token"])
    found = api.refresh(pair["refresh_token"]).body
    third = api.refresh(found["refresh_token"])
    assert third.status == 200
    assert third.body["refresh_token"] not in {lost.body["refresh_token"], pair["refresh_token"]}
    assert api.refresh(third.body["refresh_token"]).status == 200


def test_a_late_retry_of_an_older_token_within_the_grace_period_gets_its_own_successor(
    json_api: Any, pair: dict[str, str]
) -> None:
    second = json_api.refresh(pair["refresh_token"]).body
    third = json_api.refresh(second["refresh_token"]).body
    assert json_api.refresh(pair["refresh_token"]).body == second
    assert json_api.refresh(second["refresh_token"]).body == third
    assert json_api.refresh(third["refresh_token"]).status == 200


@pytest.mark.parametrize("changed", ["role = 'manager'", "first_name = 'Ana'"])
def test_the_successor_stays_what_it_was_whatever_changes(
    json_api: Any, pair: dict[str, str], database: Database, changed: str
) -> None:
    first = json_api.refresh(pair["refresh_token"]).body
    execute(database, f"UPDATE heartguard_core.users SET {changed} WHERE email = '{EMAIL}'")
    assert json_api.refresh(pair["refresh_token"]).body == first


def test_the_successor_keeps_its_key_over_a_rotation(run_service: Any, speak: Any, tmp_path: Any) -> None:
    file = tmp_path / "keyring.json"
    with run_service(JWT_KEYRING_FILE=str(file)) as app:
        api = speak(app)
        pair = api.signed_in("admin@heartguard.io", "the first admin's password")
        first = api.refresh(pair["refresh_token"]).body
        settings = load(
            KeySettings, {"JWT_SECRET": "a secret of the tests, 32 bytes long", "JWT_KEYRING_FILE": str(file)}
        )
        rotate(settings, delay=0)
        assert api.refresh(pair["refresh_token"]).body == first
        assert api.refresh(first["refresh_token"]).status == 200


def test_what_cannot_be_given_again_is_refused_and_ends_nothing(
    json_api: Any, pair: dict[str, str], database: Database
) -> None:
    """Rows of before the successor's claims were kept, or a key that is gone."""
    first = json_api.refresh(pair["refresh_token"]).body
    for broken in ("kid = NULL, role = NULL", "kid = 'gone', role = 'user'", "kid = NULL, role = 'user'"):
        execute(database, f"UPDATE heartguard_core.refresh_tokens SET {broken}")
        answer = json_api.refresh(pair["refresh_token"])
        assert (answer.status, answer.code) == (401, "AUTH_401")
    assert json_api.refresh(first["refresh_token"]).status == 200


def test_a_successor_that_would_come_out_otherwise_is_refused(
    json_api: Any, pair: dict[str, str], database: Database
) -> None:
    json_api.refresh(pair["refresh_token"])
    execute(database, "UPDATE heartguard_core.refresh_tokens SET role = 'admin'")
    assert json_api.refresh(pair["refresh_token"]).code == "AUTH_401"


def test_after_the_grace_period_it_is_theft(
    api: Any, pair: dict[str, str], database: Database, audited: list[tuple[str, str, str]]
) -> None:
    successor = api.refresh(pair["refresh_token"]).body
    other = api.signed_in(EMAIL)
    grow_older(database, 11)
    again = api.refresh(pair["refresh_token"])
    assert (again.status, again.code) == (401, "AUTH_003")
    assert api.refresh(successor["refresh_token"]).status == 401
    for token in (pair["access_token"], successor["access_token"]):
        assert api.get("/auth/profile", token).status == 401
    assert api.refresh(pair["refresh_token"]).code == "AUTH_401"
    assert api.get("/auth/profile", other["access_token"]).status == 200
    assert audited.count(("TOKEN_REUSE", "2", "denied")) == 1


def test_without_a_grace_period_every_repetition_is_theft(run_service: Any, speak: Any) -> None:
    with run_service(REFRESH_GRACE_SECONDS="0") as app:
        api = speak(app)
        token = api.signed_in("admin@heartguard.io", "the first admin's password")["refresh_token"]
        assert [api.refresh(token).status for _ in range(2)] == [200, 401]
        assert api.refresh(token).code == "AUTH_401"  # the session has ended


def test_of_many_that_refresh_at_once_all_get_one_successor(
    json_api: Any, pair: dict[str, str], database: Database, tokens: Tokens
) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in range(ROUNDS):
            token = pair["refresh_token"]
            answers = list(pool.map(lambda _, token=token: json_api.refresh(token), range(AT_ONCE)))
            assert {answer.status for answer in answers} == {200}
            assert len({answer.body["refresh_token"] for answer in answers}) == 1
            assert len({answer.body["access_token"] for answer in answers}) == 1
            pair = answers[0].body
    with database.transaction() as tx:
        counted = tx.execute(
            text("SELECT count(*), count(*) FILTER (WHERE used_at IS NULL) FROM heartguard_core.refresh_tokens")
        ).one()
    assert tuple(counted) == (ROUNDS + 1, 1)
    assert json_api.get("/auth/profile", pair["access_token"]).status == 200
    assert uuid.UUID(tokens.verify(pair["access_token"]).jti) != uuid.UUID(
        tokens.verify(pair["refresh_token"], "refresh").jti
    )
