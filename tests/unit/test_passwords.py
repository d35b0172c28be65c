"""Which passwords may be chosen, and how they are kept."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from argon2 import PasswordHasher

from heartguard.errors import Unavailable
from heartguard.settings import SettingsError, load
from services.auth.src import passwords
from services.auth.src.settings import Settings

GOOD = "a long enough one"
ENVIRONMENT = {
    "JWT_SECRET": "s" * 32,
    "DATABASE_URL": "postgresql://localhost/heartguard",
    "REDIS_URL": "redis://localhost",
    "BOOTSTRAP_ADMIN_PASSWORD": GOOD,
}


@pytest.mark.parametrize("password", ["7hq2mz p", "x" * 128, "ñ" * 8, "        ", "Password", "password ", "😀" * 128])
def test_any_characters_will_do(password: str) -> None:
    assert passwords.problem(password) is None


@pytest.mark.parametrize("password", ["", "x" * 7, "x" * 129, "😀" * 7, "password", "12345678", "trustno1"])
def test_short_long_and_common_ones_will_not(password: str) -> None:
    assert passwords.problem(password)


def test_there_are_three_thousand_common_ones_of_a_length_that_would_pass() -> None:
    assert len(passwords.commonest()) == 3000
    assert all(8 <= len(password) <= 128 for password in passwords.commonest())


def test_hashes_are_argon2id_with_owasp_parameters_and_a_salt() -> None:
    first, second = passwords.hashed(GOOD), passwords.hashed(GOOD)
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert first != second
    assert passwords.matches(first, GOOD)
    assert not passwords.matches(first, GOOD + "!")
    assert not passwords.outdated(first)


def test_no_password_matches_where_there_is_no_account() -> None:
    assert not passwords.matches(None, GOOD)
    assert not passwords.matches("not a hash", GOOD)


def test_hashes_with_other_parameters_still_match_and_are_outdated() -> None:
    older = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(GOOD)
    assert passwords.matches(older, GOOD)
    assert passwords.outdated(older)


def test_settings() -> None:
    settings = load(Settings, {**ENVIRONMENT, "BOOTSTRAP_ADMIN_EMAIL": "Root@Example.ORG"})
    assert settings.bootstrap_admin_email == "root@example.org"
    assert settings.refresh_token_ttl == 14 * 24 * 3600


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BOOTSTRAP_ADMIN_PASSWORD", "trustno1"),
        ("BOOTSTRAP_ADMIN_PASSWORD", ""),
        ("BOOTSTRAP_ADMIN_EMAIL", "nobody"),
        ("REFRESH_TOKEN_TTL", "forever"),
        ("REGISTRATION", "maybe"),
    ],
)
def test_a_wrong_setting_is_named_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as caught:
        load(Settings, {**ENVIRONMENT, name: value})
    assert not value or value not in str(caught.value)


def test_no_more_hashes_at_once_than_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert passwords._cores._max_workers == len(os.sched_getaffinity(0))
    at_work: list[int] = []
    seen: list[int] = []
    verify = PasswordHasher.verify

    def watched(self: PasswordHasher, stored: str, password: str) -> bool:
        at_work.append(1)
        seen.append(len(at_work))
        try:
            return verify(self, stored, password)
        finally:
            at_work.pop()

    monkeypatch.setattr(PasswordHasher, "verify", watched)
    stored = passwords.hashed(GOOD)
    with ThreadPoolExecutor(8) as threads:
        right = list(threads.map(lambda given: passwords.matches(stored, given), [GOOD, "wrong"] * 8))
    assert right == [True, False] * 8
    assert max(seen) <= len(os.sched_getaffinity(0))


def test_a_hash_that_gets_no_core_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()
    with ThreadPoolExecutor(1) as cores:
        monkeypatch.setattr(passwords, "_cores", cores)
        monkeypatch.setattr(passwords, "TURN_TIMEOUT", 0.01)
        cores.submit(let_go.wait, 10)
        with pytest.raises(Unavailable):
            passwords.matches(None, GOOD)
        let_go.set()
        monkeypatch.undo()
    assert passwords.matches(passwords.hashed(GOOD), GOOD)
