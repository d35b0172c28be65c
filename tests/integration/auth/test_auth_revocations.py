"""How the gateways' list in Valkey comes to hold every revocation."""

import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import text

from heartguard.database import Database
from heartguard.local.files import private_folder
from heartguard.local.server import Running
from heartguard.local.valkey import Valkey
from heartguard.tokens import Claims, Tokens
from heartguard.valkey import REVOCATIONS_COMPLETE, REVOKED_SESSION, REVOKED_TOKEN
from services.auth.src import db_sweeps, housekeeping, revocations

ADMIN = ("admin@heartguard.io", "the first admin's password")


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "INTERVAL", 0.05)


def is_listed(valkey: Redis, claims: Claims) -> bool:
    return bool(valkey.exists(REVOKED_TOKEN + claims.jti) and valkey.exists(REVOKED_SESSION + claims.sid))


def run_id(valkey: Redis) -> bytes:
    return valkey.info("server")["run_id"].encode()


def is_complete(valkey: Redis) -> bool:
    with suppress(RedisError):
        return valkey.get(REVOCATIONS_COMPLETE) == run_id(valkey)
    return False


def outstanding(database: Database) -> int:
    with database.transaction() as tx:
        return int(
            tx.execute(text("SELECT count(*) FROM heartguard_core.revoked_tokens WHERE NOT published")).scalar_one()
        )


def test_the_list_is_complete_soon_after_the_start(app: Any, valkey: Redis, eventually: Any) -> None:
    eventually(lambda: is_complete(valkey))
    assert valkey.ttl(REVOCATIONS_COMPLETE) == -1


def test_signing_out_is_listed_at_once_until_the_tokens_have_expired(
    json_api: Any, valkey: Redis, tokens: Tokens, database: Database, eventually: Any
) -> None:
    pair = json_api.signed_in(*ADMIN)
    claims = tokens.verify(pair["access_token"])
    newest = tokens.verify(json_api.refresh(pair["refresh_token"]).body["access_token"])
    assert json_api.logout(pair["access_token"]).status == 204
    assert is_listed(valkey, claims)
    assert valkey.expiretime(REVOKED_TOKEN + claims.jti) >= claims.exp
    assert valkey.expiretime(REVOKED_SESSION + claims.sid) >= newest.exp
    eventually(lambda: outstanding(database) == 0)


def test_a_stolen_refresh_token_lists_the_session(
    json_api: Any, valkey: Redis, tokens: Tokens, database: Database
) -> None:
    pair = json_api.signed_in(*ADMIN)
    json_api.refresh(pair["refresh_token"])
    with database.transaction() as tx:
        tx.execute(text("UPDATE heartguard_core.refresh_tokens SET used_at = used_at - interval '1 hour'"))
    assert json_api.refresh(pair["refresh_token"]).code == "AUTH_003"
    assert valkey.exists(REVOKED_SESSION + tokens.verify(pair["access_token"]).sid)


def test_an_emptied_valkey_is_told_everything_anew(
    json_api: Any, valkey: Redis, tokens: Tokens, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "BATCH", 2)
    out = [json_api.signed_in(*ADMIN)["access_token"] for _ in range(5)]
    for token in out:
        json_api.logout(token)
    eventually(lambda: is_complete(valkey))
    valkey.flushall()
    eventually(lambda: is_complete(valkey))
    assert all(is_listed(valkey, tokens.verify(token)) for token in out)


def test_a_marker_of_another_process_does_not_count(
    json_api: Any, valkey: Redis, tokens: Tokens, eventually: Any
) -> None:
    token = json_api.signed_in(*ADMIN)["access_token"]
    json_api.logout(token)
    eventually(lambda: is_complete(valkey))
    with valkey.pipeline() as pipeline:
        pipeline.flushall()
        pipeline.set(REVOCATIONS_COMPLETE, b"0" * 40)
        pipeline.execute()
    eventually(lambda: is_complete(valkey))
    assert is_listed(valkey, tokens.verify(token))


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A Valkey of this test's own, not yet running."""
    folder = Path(tempfile.mkdtemp(prefix="hg-"))
    private_folder(folder / "secrets")
    yield Valkey(folder / "valkey", folder / "secrets")
    shutil.rmtree(folder)


def test_what_ends_while_valkey_is_down_is_ended_and_listed_once_it_is_back(
    run_service: Any, speak: Any, own_valkey: Valkey, tokens: Tokens, eventually: Any
) -> None:
    """It keeps its data over the restart, marker included, but that marker is another process's."""
    first = Running(own_valkey)
    with run_service(REDIS_URL=own_valkey.url) as app, Redis.from_url(own_valkey.url) as valkey:
        api = speak(app)
        token = api.signed_in(*ADMIN)["access_token"]
        try:
            eventually(lambda: is_complete(valkey))
            before = run_id(valkey)
        finally:
            first.stop()
        assert api.logout(token).status == 204  # nobody can read the list: gateways ask
        assert api.introspect(token, tokens.service_token()).body == {"active": False}
        second = Running(own_valkey)
        try:
            eventually(lambda: is_complete(valkey))
            assert run_id(valkey) != before
            assert is_listed(valkey, tokens.verify(token))
        finally:
            second.stop()


@contextmanager
def silent_server() -> Iterator[int]:
    """Accepts connections and never answers: what a cut network looks like from one side."""
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    accepted.append(server.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for connection in accepted:
            connection.close()


def test_signing_out_says_so_where_gateways_may_not_know(
    run_service: Any, speak: Any, valkey: Redis, tokens: Tokens, eventually: Any
) -> None:
    """Auth alone is cut off from Valkey. The session has ended; the answer does not claim that all know it."""
    with silent_server() as port, run_service(REDIS_URL=f"redis://127.0.0.1:{port}/0") as app:
        token = speak(app).signed_in(*ADMIN)["access_token"]
        for fmt in ("json", "xml"):
            answer = speak(app, fmt).logout(token)
            assert (answer.status, answer.code) == (503, "AUTH_503")
            assert answer.headers["Retry-After"]
        assert speak(app).introspect(token, tokens.service_token()).body == {"active": False}
        assert not is_listed(valkey, tokens.verify(token))
    with run_service():  # reaches it
        eventually(lambda: is_listed(valkey, tokens.verify(token)))


def test_signing_out_of_a_session_that_was_swept_is_no_error(json_api: Any, database: Database) -> None:
    token = json_api.signed_in(*ADMIN)["access_token"]
    with database.transaction() as tx:
        tx.execute(text("DELETE FROM heartguard_core.sessions"))
    assert json_api.logout(token).status == 204


def test_signing_out_without_the_database_is_503_and_the_token_lives(json_api: Any, database: Database) -> None:
    token = json_api.signed_in(*ADMIN)["access_token"]
    with database.transaction() as tx:
        tx.execute(text("LOCK heartguard_core.revoked_tokens"))
        assert json_api.logout(token).status == 503  # after the lock time limit
    assert json_api.get("/auth/profile", token).status == 200


def test_expired_rows_are_swept_in_bounded_batches(
    json_api: Any, database: Database, tokens: Tokens, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "SWEEP_INTERVAL", 0.0)
    monkeypatch.setattr(housekeeping, "SWEEP_BATCH", 2)
    pairs = [json_api.signed_in(*ADMIN) for _ in range(5)]
    for pair in pairs[:3]:
        json_api.logout(pair["access_token"])
    living = json_api.signed_in(*ADMIN)
    sid = tokens.verify(living["access_token"]).sid
    with database.transaction() as tx:
        for sql in (
            "UPDATE heartguard_core.refresh_tokens SET expires_at = now() - interval '1 day' WHERE session_id <> :sid",
            "UPDATE heartguard_core.sessions SET access_expires_at = now() - interval '1 day',"
            " refresh_expires_at = now() - interval '1 day' WHERE id <> :sid",
            "UPDATE heartguard_core.revoked_tokens SET expires_at = now() - interval '1 day' WHERE id <> :sid",
        ):
            tx.execute(text(sql), {"sid": sid})

    def rows() -> list[int]:
        with database.transaction() as tx:
            return [
                tx.execute(text(f"SELECT count(*) FROM heartguard_core.{table}")).scalar_one()
                for table in ("refresh_tokens", "sessions", "revoked_tokens")
            ]

    eventually(lambda: rows() == [1, 1, 0])
    assert json_api.refresh(living["refresh_token"]).status == 200


def test_a_session_with_a_living_refresh_token_is_kept(json_api: Any, database: Database) -> None:
    pair = json_api.signed_in(*ADMIN)
    with database.transaction() as tx:
        tx.execute(text("UPDATE heartguard_core.sessions SET access_expires_at = now() - interval '1 day'"))
        assert not db_sweeps.sweep(tx, 100)
    assert json_api.refresh(pair["refresh_token"]).status == 200


def test_it_is_ready_once_it_is_set_up(api: Any) -> None:
    answer = api.get("/auth/ready")
    assert (answer.status, answer.body["status"]) == (200, "ready")
    assert {check["name"] for check in answer.body["checks"]} == {"postgresql", "setup", "valkey"}


def test_without_valkey_it_is_degraded_and_works(run_service: Any, speak: Any, tmp_path: Path) -> None:
    with run_service(REDIS_URL=f"unix://{tmp_path}/none.sock") as app:
        api = speak(app)
        answer = api.get("/auth/ready")
        assert (answer.status, answer.body["status"]) == (200, "degraded")
        pair = api.signed_in(*ADMIN)
        assert api.refresh(pair["refresh_token"]).status == 200
        assert api.logout(pair["access_token"]).status == 204


def test_without_postgresql_it_starts_and_is_not_ready(run_service: Any, speak: Any, tmp_path: Path) -> None:
    with run_service(set_up=False, DATABASE_URL=f"postgresql:///none?host={tmp_path}") as app:
        answer = speak(app).get("/auth/ready")
        assert (answer.status, answer.body["status"]) == (503, "unavailable")
        assert speak(app).login(*ADMIN).status == 503
        assert speak(app).get("/auth/health").status == 200
