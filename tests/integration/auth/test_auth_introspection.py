"""What introspection says of tokens."""

from typing import Any

import pytest
from sqlalchemy import text

from heartguard.database import Database
from heartguard.tokens import KeyRing, Tokens

EMAIL = "user@hg.io"


@pytest.fixture
def pair(json_api: Any) -> dict[str, str]:
    """A signed-in user's tokens."""
    json_api.register(email=EMAIL)
    return dict(json_api.signed_in(EMAIL))


@pytest.fixture
def service(tokens: Tokens) -> str:
    return tokens.service_token()


@pytest.mark.parametrize("typ", ["access", "refresh"])
def test_an_active_token_and_what_it_says(
    api: Any, pair: dict[str, str], service: str, tokens: Tokens, typ: str
) -> None:
    token = pair[f"{typ}_token"]
    claims = tokens.read(token)
    answer = api.introspect(token, service)
    assert answer.status == 200
    assert {name: str(value) for name, value in answer.body.items()} == {
        "active": "True", "sub": "2", "role": "user", "org_id": "1", "sid": claims.sid, "jti": claims.jti,
        "exp": str(claims.exp), "iat": str(claims.iat), "typ": typ,
    }  # fmt: skip


def inactive(api: Any, token: str, by: str) -> bool:
    answer = api.introspect(token, by)
    return (answer.status, answer.body) == (200, {"active": False})


def test_what_is_no_token_is_inactive(api: Any, pair: dict[str, str], service: str, tokens: Tokens) -> None:
    stranger = Tokens(KeyRing.from_secret(b"x" * 32))
    claims = tokens.read(pair["access_token"])
    expired, _ = tokens.issue(sub=claims.sub, role="user", org_id=1, sid=claims.sid, typ="access", seconds=-1)
    unknown, _ = tokens.issue(
        sub=claims.sub, role="user", org_id=1, sid="00000000-0000-4000-8000-000000000000", typ="access", seconds=60
    )
    anothers, _ = tokens.issue(sub="1", role="user", org_id=1, sid=claims.sid, typ="access", seconds=60)
    unissued, _ = tokens.issue(sub=claims.sub, role="user", org_id=1, sid=claims.sid, typ="refresh", seconds=60)
    for token in (
        "", "x", "..", "é", "[" * 4000, pair["access_token"] + "x", stranger.sign(claims), expired, unknown, anothers,
        unissued,
    ):  # fmt: skip
        assert inactive(api, token, service)


def test_tokens_of_an_ended_session_are_inactive(api: Any, pair: dict[str, str], service: str) -> None:
    api.logout(pair["access_token"])
    assert inactive(api, pair["access_token"], service)
    assert inactive(api, pair["refresh_token"], service)


def test_a_used_refresh_token_is_inactive(api: Any, pair: dict[str, str], service: str) -> None:
    api.refresh(pair["refresh_token"])
    assert inactive(api, pair["refresh_token"], service)
    assert not inactive(api, pair["access_token"], service)


def test_a_revoked_token_is_inactive_in_a_session_that_lives(
    json_api: Any, pair: dict[str, str], service: str, database: Database, tokens: Tokens
) -> None:
    with database.transaction() as tx:
        tx.execute(
            text("INSERT INTO heartguard_core.revoked_tokens VALUES ('jti', :jti, now() + interval '1 hour')"),
            {"jti": tokens.read(pair["access_token"]).jti},
        )
    assert inactive(json_api, pair["access_token"], service)
    assert not inactive(json_api, pair["refresh_token"], service)


def test_tokens_of_a_deleted_user_are_inactive(
    json_api: Any, pair: dict[str, str], service: str, database: Database
) -> None:
    with database.transaction() as tx:
        tx.execute(text("UPDATE heartguard_core.users SET deleted_at = now() WHERE id = 2"))
    assert inactive(json_api, pair["access_token"], service)
    assert inactive(json_api, pair["refresh_token"], service)


def test_service_tokens_are_active(json_api: Any, service: str) -> None:
    assert json_api.introspect(service, service).body["role"] == "service"


def test_who_may_ask(api: Any, pair: dict[str, str]) -> None:
    assert not inactive(api, pair["access_token"], api.admin())
    assert api.introspect(pair["access_token"], pair["access_token"]).status == 403
    assert api.introspect(pair["access_token"], "").status == 401


def test_an_admin_learns_nothing_of_another_organizations_tokens(run_service: Any, speak: Any) -> None:
    with run_service(ORG_SIGNUP="true") as app:
        api = speak(app)
        api.register(email="chief@clinic.io", organization_name="Clinic")
        chief, admin = api.signed_in("chief@clinic.io")["access_token"], api.admin()
        assert inactive(api, admin, chief)
        assert inactive(api, chief, admin)
        assert not inactive(api, chief, chief)
