"""The key ring: rotation that no service misses and no good token suffers from."""

import base64
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from heartguard import keyring
from heartguard.cli.main import app
from heartguard.errors import Unauthorized
from heartguard.keyring import Key, KeyRing, KeyRingFile, described, open_ring, read, ring_at, rotate, stored
from heartguard.settings import KeySettings, SettingsError, load
from heartguard.tokens import Tokens
from services.gateway.src.authentication import Authenticator

SECRET = "0123456789abcdef0123456789abcdef"
FIRST = KeyRing.from_secret(SECRET.encode())
DAY = 24 * 3600


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keyring.json"


@pytest.fixture
def settings(file: Path) -> KeySettings:
    return load(KeySettings, {"JWT_SECRET": SECRET, "JWT_KEYRING_FILE": str(file)})


@pytest.fixture
def opened(file: Path) -> KeyRingFile:
    return KeyRingFile(SECRET.encode(), file)


def issue(tokens: Tokens, seconds: int = 60) -> str:
    return tokens.issue(sub="7", role="user", org_id=1, sid="s", typ="access", seconds=seconds)[0]


def refused(verify: Callable[[], object]) -> bool:
    try:
        verify()
    except Unauthorized:
        return True
    return False


def test_without_a_file_it_is_the_secret(opened: KeyRingFile, settings: KeySettings) -> None:
    assert opened.current() == opened.reread() == FIRST
    assert open_ring(SECRET.encode(), None) == FIRST
    assert [key.kid for key in stored(settings)] == [FIRST.newest]


def test_a_new_key_is_known_at_once_and_signs_later(opened: KeyRingFile, settings: KeySettings, file: Path) -> None:
    key = rotate(settings, delay=60)
    assert file.stat().st_mode & 0o777 == 0o600
    ring = opened.reread()
    assert (set(ring.keys), ring.newest) == ({FIRST.newest, key.kid}, FIRST.newest)
    keys = read(file)
    assert ring_at(keys, key.signs_from - 1).newest == FIRST.newest
    assert ring_at(keys, key.signs_from).newest == key.kid


def test_an_older_key_verifies_until_its_last_token_has_expired(settings: KeySettings, file: Path) -> None:
    key = rotate(settings, delay=30)
    last = key.signs_from + settings.refresh_token_ttl
    assert FIRST.newest in ring_at(read(file), last + 1).keys
    assert set(ring_at(read(file), last + 61).keys) == {key.kid}


def test_access_tokens_count_where_they_live_longer_than_refresh_tokens(file: Path) -> None:
    settings = load(KeySettings, {"JWT_SECRET": SECRET, "JWT_KEYRING_FILE": str(file), "REFRESH_TOKEN_TTL": "60"})
    key = rotate(settings)
    assert FIRST.newest in ring_at(read(file), key.signs_from + DAY).keys


def test_expired_keys_are_dropped_by_the_next_rotation(
    settings: KeySettings, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = rotate(settings)
    third = rotate(settings)
    assert [key.kid for key in read(file)] == [FIRST.newest, second.kid, third.kid]
    later = time.time() + 15 * DAY
    monkeypatch.setattr(keyring.time, "time", lambda: later)
    fourth = rotate(settings)
    assert [key.kid for key in read(file)] == [third.kid, fourth.kid]
    assert [row[1] for row in described(read(file), later)] == ["signs", "waits"]


def test_a_compromised_ring_is_replaced_at_once(settings: KeySettings, opened: KeyRingFile) -> None:
    tokens = Tokens(opened)
    old = issue(tokens)
    key = rotate(settings, compromised=True)
    assert set(opened.reread().keys) == {key.kid}
    assert refused(lambda: tokens.verify(old))
    assert tokens.verify(issue(tokens))


def test_an_unknown_key_makes_the_file_be_read_at_once(settings: KeySettings, file: Path) -> None:
    here, there = Tokens(KeyRingFile(SECRET.encode(), file)), Tokens(KeyRingFile(SECRET.encode(), file))
    rotate(settings, delay=0)
    here.ring, here._ring.reread()
    token = issue(here)
    assert there.ring.newest == FIRST.newest  # it has not looked yet
    assert there.verify(token)


def test_the_file_is_looked_at_once_a_second_at_most(
    settings: KeySettings, opened: KeyRingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = rotate(settings, delay=0)
    assert opened.current() == FIRST
    now = time.monotonic()
    monkeypatch.setattr(keyring.time, "monotonic", lambda: now + 1.1)
    ring = opened.current()
    assert ring.newest == key.kid
    monkeypatch.setattr(keyring.time, "monotonic", lambda: now + 5)
    assert opened.current() is ring


def test_a_waiting_key_begins_to_sign_without_the_file_being_touched(
    settings: KeySettings, opened: KeyRingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = rotate(settings, delay=30)
    assert opened.reread().newest == FIRST.newest
    later, monotonic = time.time() + 31, time.monotonic()
    monkeypatch.setattr(keyring.time, "time", lambda: later)
    monkeypatch.setattr(keyring.time, "monotonic", lambda: monotonic + 31)
    assert opened.current().newest == key.kid


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", '{"keys": []}', "\0", '{"keys": [{"kid": "x", "secret": "eA==", "signs_from": 0}]}'],
)
def test_a_broken_file_stops_the_start_but_not_a_running_service(
    opened: KeyRingFile, settings: KeySettings, file: Path, content: str
) -> None:
    key = rotate(settings)
    good = opened.reread()
    file.write_text(content)
    with pytest.raises(SettingsError, match="JWT_KEYRING_FILE"):
        KeyRingFile(SECRET.encode(), file)
    assert opened.reread() is good
    file.unlink()
    assert opened.reread() is good
    rotate(settings)
    assert key.kid not in opened.reread().keys  # from the secret again, since the file was gone


def test_what_is_kept_is_not_shown(settings: KeySettings, file: Path) -> None:
    rotate(settings)
    secrets = [key["secret"] for key in json.loads(file.read_text())["keys"]]
    shown = " ".join(" ".join(row) for row in described(stored(settings), time.time()))
    assert base64.b64decode(secrets[0]).decode() == SECRET
    assert not any(secret in shown for secret in secrets)


def test_an_expired_key_is_described_so() -> None:
    keys = [
        Key(kid="a", secret="", signs_from=0.0, verifies_until=10.0),
        Key(kid="b", secret="", signs_from=5.0),
    ]
    assert [row[:2] for row in described(keys, 20.0)] == [("a", "expired"), ("b", "signs")]
    assert [row[:2] for row in described(keys, 7.0)] == [("a", "verifies"), ("b", "signs")]


def test_rotations_at_once_follow_each_other(settings: KeySettings, file: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        made = {key.kid for key in pool.map(lambda _: rotate(settings), range(6))}
    assert {key.kid for key in read(file)} == {FIRST.newest, *made}
    assert sum(key.verifies_until is None for key in read(file)) == 1


def test_a_rotation_that_never_ends_is_not_waited_for(
    settings: KeySettings, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring.time, "sleep", lambda _: None)
    with keyring._alone(file), pytest.raises(BlockingIOError, match="does not end"):
        rotate(settings)


def test_the_command_of_containers(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)
    monkeypatch.setenv("JWT_KEYRING_FILE", str(file))
    keyring.main(["list"])
    assert capsys.readouterr().out.split("\t")[:2] == [FIRST.newest, "signs"]
    keyring.main(["rotate", "--delay", "5"])
    assert len(capsys.readouterr().out.splitlines()) == 2
    monkeypatch.setenv("JWT_KEYRING_FILE", "")
    for action in ("list", "rotate"):
        with pytest.raises(SystemExit, match="JWT_KEYRING_FILE"):
            keyring.main([action])


def test_the_operators_command(file: Path, short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "JWT_SECRET": SECRET,
        "BOOTSTRAP_ADMIN_PASSWORD": "a long enough one",
        "HEARTGUARD_DATA": str(short_folder / "data"),
        "JWT_KEYRING_FILE": str(file),
    }.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["keys", *arguments], prog_name="heartguard")

    assert FIRST.newest in run("list").output
    assert run("rotate", "--delay", "7").output.count("waits") == 1
    assert len(read(file)) == 2
    assert run("rotate", "--compromised").output.count("signs") == 1
    file.write_text("{}")
    for action in ("list", "rotate"):
        assert run(action).exit_code == 1
    monkeypatch.setenv("JWT_KEYRING_FILE", "")
    assert run("rotate").exit_code == 0
    assert len(read(short_folder / "data" / "secrets" / "keyring.json")) == 2


def test_the_gateway_remembers_no_token_beyond_its_key(settings: KeySettings, opened: KeyRingFile) -> None:
    tokens = Tokens(opened)
    authenticator = Authenticator(tokens)
    header = f"Bearer {issue(tokens)}"
    assert authenticator.claims(header) is authenticator.claims(header)
    rotate(settings, delay=0)
    opened.reread()
    assert authenticator.claims(header)
    rotate(settings, compromised=True)
    opened.reread()
    assert refused(lambda: authenticator.claims(header))


def test_no_good_token_is_refused_while_keys_rotate(settings: KeySettings, file: Path) -> None:
    """One service issues, others verify, each with a ring of its own, while keys come and begin to sign."""
    issuer, *verifiers = (Tokens(KeyRingFile(SECRET.encode(), file)) for _ in range(4))
    gateways = [Authenticator(verifier) for verifier in verifiers]
    stop = threading.Event()
    early = issue(issuer)

    def work(gateway: Authenticator) -> int:
        done = 0
        while not stop.is_set():
            gateway.claims(f"Bearer {issue(issuer)}")
            gateway.claims(f"Bearer {early}")
            done += 1
        return done

    kids = set()
    with ThreadPoolExecutor(len(gateways)) as pool:
        running = [pool.submit(work, gateway) for gateway in gateways]
        try:
            for delay in (0, 1, 0, 1):
                rotate(settings, delay=delay)
                time.sleep(0.6)
                kids.add(issuer.ring.newest)
        finally:
            stop.set()
        assert all(one.result(10) > 10 for one in running)
    assert len(kids) >= 2
    assert {path.name for path in file.parent.iterdir()} == {"keyring.json", "keyring.json.lock"}
