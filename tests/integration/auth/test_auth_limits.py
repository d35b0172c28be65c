"""An account cannot be tried without end, with Valkey or without, and the log tells nobody's secrets."""

import os
import subprocess
import sys
from typing import Any

import pytest
from redis import Redis

EMAIL = "user@hg.io"


def test_sign_ins_of_one_account_are_limited_whatever_the_case(run_service: Any, speak: Any, valkey: Redis) -> None:
    with run_service(AUTH_RATE_LIMIT="3/hour") as app:
        for fmt in ("json", "xml"):
            api = speak(app, fmt)
            email = f"user@{fmt}.io"
            api.register(email=email)
            for _ in range(3):
                assert api.login(email).status == 200
            refused = api.login(email.upper())
            assert (refused.status, refused.code) == (429, "AUTH_429")
            assert 1 <= int(refused.headers["Retry-After"]) <= 3600
            assert api.login(f"other@{fmt}.io").status == 401
    keys = b" ".join(valkey.keys("*"))
    assert b"rate:account-login:" in keys
    assert b"@" not in keys


def test_unknown_accounts_are_limited_alike(run_service: Any, speak: Any) -> None:
    with run_service(AUTH_RATE_LIMIT="3/hour") as app:
        assert [speak(app).login("nobody@hg.io").status for _ in range(4)] == [401, 401, 401, 429]


def test_registrations_and_refreshes_are_limited_too(run_service: Any, speak: Any) -> None:
    with run_service(AUTH_RATE_LIMIT="3/hour") as app:
        api = speak(app)
        assert [api.register(email=EMAIL).status for _ in range(4)] == [201, 409, 409, 429]
        token = api.signed_in(EMAIL)["refresh_token"]
        assert [api.refresh(token).status for _ in range(4)] == [200, 200, 200, 429]


def test_a_dead_refresh_token_uses_up_nothing_of_its_owners(run_service: Any, speak: Any) -> None:
    with run_service(AUTH_RATE_LIMIT="3/hour") as app:
        api = speak(app)
        api.register(email=EMAIL)
        stolen = api.signed_in(EMAIL)
        assert api.logout(stolen["access_token"]).status == 204
        token = api.signed_in(EMAIL)["refresh_token"]
        assert [api.refresh(stolen["refresh_token"]).status for _ in range(5)] == [401] * 5
        assert api.refresh(token).status == 200


def test_without_valkey_there_still_is_a_limit(run_service: Any, speak: Any, tmp_path: Any) -> None:
    with run_service(AUTH_RATE_LIMIT="3/hour", REDIS_URL=f"unix://{tmp_path}/none.sock") as app:
        assert [speak(app).login("nobody@hg.io").status for _ in range(4)] == [401, 401, 401, 429]


SCRIPT = """
import sys
from services.auth.src.app import create_app

app = create_app()
housekeeping = app.extensions["heartguard.housekeeping"]
housekeeping._stop.wait(1)
client = app.test_client()
account = {"email": "someone@example.org", "password": "a password of someone"}
client.post("/auth/register", json=account)
pair = client.post("/auth/login", json=account).json
client.post("/auth/login", json={**account, "password": "a wrong password"})
client.post("/auth/login", json={**account, "surplus": 1})
client.post("/auth/refresh", json={"refresh_token": pair["refresh_token"]})
client.post("/auth/refresh", json={"refresh_token": pair["refresh_token"]})
client.post("/auth/logout", headers={"Authorization": "Bearer " + pair["access_token"]})
housekeeping.stop()
print(pair["access_token"], pair["refresh_token"], file=sys.stderr)
"""


@pytest.fixture
def logged(environ: dict[str, str]) -> tuple[str, list[str]]:
    """What the service logs while someone uses it, and that one's tokens."""
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **environ, "LOG_LEVEL": "DEBUG"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ran.stdout, ran.stderr.split()[-2:]


def test_neither_log_nor_trail_holds_a_password_a_token_or_an_address(
    logged: tuple[str, list[str]], audited: Any
) -> None:
    log, tokens = logged
    told = "".join(map(repr, audited.events))
    for path, action in (("register", "REGISTER"), ("login", "LOGIN"), ("refresh", "TOKEN_REFRESH")):
        assert f'"path":"/auth/{path}"' in log
        assert action in told
    assert "s***@example.org" in told
    secrets = [
        "someone@example.org",
        "a password of someone",
        "a wrong password",
        "$argon2",
        "the first admin's password",
    ]
    for secret in [*secrets, *tokens, *(token.rpartition(".")[2] for token in tokens)]:
        assert secret not in log
        assert secret not in told
