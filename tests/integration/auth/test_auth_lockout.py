"""Guessers are locked out; a device that signed in before is not."""

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from argon2 import PasswordHasher
from redis import Redis

from heartguard.database import Database
from services.auth.src.lockout import MemoryFailures

EMAIL = "user@hg.io"
WRONG = "not the password"


@pytest.fixture
def user(json_api: Any) -> int:
    return int(json_api.register(email=EMAIL).body["user_id"])


def test_a_hundred_guesses_from_new_devices_spare_the_owners(app: Any, speak: Any, user: int) -> None:
    owners, also_owners = speak(app, cookies=True), speak(app, "xml", cookies=True)
    for device in (owners, also_owners):
        device.signed_in(EMAIL)
    guesses = [speak(app).login(EMAIL, f"guess number {i}") for i in range(100)]
    assert [guess.status for guess in guesses] == [401] * 10 + [429] * 90
    assert {guess.code for guess in guesses[10:]} == {"AUTH_004"}
    for device in (owners, also_owners):
        assert device.login(EMAIL).status == 200
    locked = speak(app).login(EMAIL)  # with the right password
    assert (locked.status, locked.code) == (429, "AUTH_004")
    assert 1 <= int(locked.headers["Retry-After"]) <= 900
    assert owners.login(EMAIL).status == 200


def test_guesses_at_once_are_no_more(app: Any, speak: Any, user: int) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: speak(app).login(EMAIL, f"guess {i}").status, range(48)))
    assert (answers.count(401), answers.count(429)) == (10, 38)


def test_signing_in_is_no_failure(app: Any, speak: Any, user: int) -> None:
    for _ in range(2):
        assert [speak(app).login(EMAIL).status for _ in range(12)] == [200] * 12
    assert [speak(app).login(EMAIL, WRONG).status for _ in range(9)] == [401] * 9
    assert [speak(app).login(EMAIL).status for _ in range(5)] == [200] * 5
    assert [speak(app).login(EMAIL, WRONG).status for _ in range(2)] == [401, 429]


@pytest.mark.parametrize("address", ["nobody@hg.io", EMAIL])
def test_unknown_addresses_lock_alike(api: Any, user: int, address: str, valkey: Redis) -> None:
    answers = [api.login(address, WRONG) for _ in range(11)]
    assert [answer.status for answer in answers] == [401] * 10 + [429]
    (key,) = valkey.keys("lockout:*")
    assert address.encode() not in key
    assert 0 < valkey.ttl(key) <= 900


def test_the_lock_lasts_as_long_as_its_key(json_api: Any, user: int, valkey: Redis) -> None:
    assert [json_api.login(EMAIL, WRONG).status for _ in range(11)][-1] == 429
    (key,) = valkey.keys("lockout:*")
    assert 800 < valkey.ttl(key) <= 900
    valkey.pexpire(key, 1)
    time.sleep(0.05)
    assert json_api.login(EMAIL).status == 200


def test_failures_older_than_the_window_do_not_count(json_api: Any, user: int, valkey: Redis) -> None:
    for _ in range(9):
        json_api.login(EMAIL, WRONG)
    (key,) = valkey.keys("lockout:*")
    for member, at in valkey.zrange(key, 0, 3, withscores=True):
        valkey.zadd(key, {member: at - 900_001})
    assert [json_api.login(EMAIL, WRONG).status for _ in range(6)] == [401] * 5 + [429]


def test_a_known_device_is_limited_by_itself(app: Any, speak: Any, user: int) -> None:
    stolen, other = speak(app, cookies=True), speak(app, cookies=True)
    for device in (stolen, other):
        device.signed_in(EMAIL)
    assert [stolen.login(EMAIL, WRONG).status for _ in range(11)] == [401] * 10 + [429]
    assert other.login(EMAIL).status == 200
    assert speak(app).login(EMAIL).status == 200


def test_strangers_cannot_empty_the_bucket_of_a_known_device(run_service: Any, speak: Any) -> None:
    with run_service(AUTH_RATE_LIMIT="3/hour") as app:
        owners = speak(app, cookies=True)
        owners.register(email=EMAIL)
        owners.signed_in(EMAIL)
        assert [speak(app).login(EMAIL, WRONG).code for _ in range(4)][-1] == "AUTH_429"
        assert owners.login(EMAIL).status == 200


def test_being_limited_is_no_failure(run_service: Any, speak: Any) -> None:
    with run_service(AUTH_RATE_LIMIT="3/s") as app:
        api = speak(app)
        api.register(email=EMAIL)
        refused = [answer for answer in (api.login(EMAIL) for _ in range(60)) if answer.status == 429]
        assert {answer.code for answer in refused} <= {"AUTH_429"}


COOKIE = "hg_device_"


def cookie_of(app: Any, email: str, **options: Any) -> Any:
    client = app.test_client()
    answer = client.post("/auth/login", json={"email": email, "password": "Secret123!x"}, **options)
    assert answer.status_code == 200
    return answer.headers["Set-Cookie"]


def test_the_cookie_is_for_signing_in_alone(app: Any, user: int) -> None:
    plain = cookie_of(app, EMAIL)
    assert plain.startswith(COOKIE)
    for attribute in ("HttpOnly", "Path=/auth/login", "SameSite=Strict", "Max-Age=31536000"):
        assert attribute in plain
    assert "Secure" not in plain
    assert "Secure" in cookie_of(app, EMAIL, headers={"X-Forwarded-Proto": "https"})


def test_a_cookie_cannot_be_forged_or_used_for_another(
    app: Any, user: int, speak: Any, json_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    json_api.register(email="thief@hg.io")
    name, _, value = cookie_of(app, EMAIL).partition(";")[0].partition("=")
    theirs, _, thiefs = cookie_of(app, "thief@hg.io").partition(";")[0].partition("=")
    assert theirs != name
    id_, expires, mac = value.split(".")
    for _ in range(10):
        json_api.login(EMAIL, WRONG)
    forged = [
        "", "..", "a.b", "é", value[:-1], value + "0", f"{id_}x.{expires}.{mac}", f"{id_}.9{expires}.{mac}",
        f"{id_}.{expires}", f"{id_}.{expires}.", f".{expires}.{mac}", thiefs, "x" * 3000,
    ]  # fmt: skip

    def login(cookie: str) -> int:
        client = app.test_client(use_cookies=False)
        headers = {"Cookie": f"{name}={cookie}"}
        return int(
            client.post("/auth/login", json={"email": EMAIL, "password": "Secret123!x"}, headers=headers).status_code
        )

    assert [login(cookie) for cookie in forged] == [429] * len(forged)
    assert login(value) == 200
    later = time.time() + 366 * 24 * 3600
    monkeypatch.setattr("services.auth.src.devices.time.time", lambda: later)
    assert login(value) == 429


def test_people_who_share_a_device_are_both_known(app: Any, speak: Any, user: int) -> None:
    shared = speak(app, cookies=True)
    shared.register(email="other@hg.io")
    for email in (EMAIL, "other@hg.io"):
        shared.signed_in(email)
    for email in (EMAIL, "other@hg.io"):
        for _ in range(11):
            speak(app).login(email, WRONG)
        assert shared.login(email).status == 200


def test_without_valkey_guessers_are_locked_out_too(run_service: Any, speak: Any, tmp_path: Any) -> None:
    with run_service(REDIS_URL=f"unix://{tmp_path}/none.sock") as app:
        owners = speak(app, cookies=True)
        owners.register(email=EMAIL)
        assert owners.login(EMAIL).status == 200
        answers = [speak(app).login(EMAIL, WRONG) for _ in range(12)]
        assert [answer.status for answer in answers] == [401] * 10 + [429] * 2
        assert (answers[-1].code, int(answers[-1].headers["Retry-After"]) <= 900) == ("AUTH_004", True)
        assert owners.login(EMAIL).status == 200


def test_memory_follows_the_same_rules() -> None:
    failures = MemoryFailures(size=2)
    assert [failures.begin("a", str(i), now=float(i)) for i in range(10)] == [0] * 10
    assert failures.begin("a", "x", now=10.0) == 899_000
    failures.strike_off("a", "9")
    assert failures.begin("a", "x", now=11.0) == 0
    assert failures.begin("a", "y", now=910.9) == 100
    assert failures.begin("a", "y", now=911.0) == 0
    assert all(failures.begin("b", str(i), now=float(i * 100)) == 0 for i in range(100))
    failures.strike_off("nobody", "x")


def test_memory_is_bounded() -> None:
    failures = MemoryFailures(size=2)
    for i in range(10):
        failures.begin("a", str(i), now=0.0)
    for owner in ("b", "c"):
        failures.begin(owner, "x", now=0.0)
    assert len(failures._owners) == 2
    assert failures.begin("a", "x", now=0.0) == 0


def test_known_and_unknown_addresses_cost_the_same_work(
    json_api: Any, user: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same hashing with the same parameters, as many statements. (The times themselves: benchmarks/sign_in.py)"""
    work: list[Any] = []
    verify = PasswordHasher.verify

    def counted(self: PasswordHasher, stored: str, password: str) -> Any:
        work.append(stored.split("$")[1:4])
        return verify(self, stored, password)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    at_once = Database.at_once

    def noted(self: Database, statement: Any, *arguments: Any, **shown: Any) -> Any:
        work.append(str(statement))
        return at_once(self, statement, *arguments, **shown)

    monkeypatch.setattr(Database, "at_once", noted)
    seen = []
    for address in (EMAIL, "nobody@hg.io"):
        work.clear()
        assert json_api.login(address, WRONG).status == 401
        seen.append([*work])
    assert all(one == other for one, other in pairwise(seen))
    assert [type(entry) for entry in seen[0]] == [str, list]
