"""The keys that tokens are signed with: a ring that starts from ``JWT_SECRET`` and can be rotated while services run.

Once ``JWT_KEYRING_FILE`` exists it is the truth; until then the ring is the one key made of ``JWT_SECRET``. A
rotation adds a key and leaves everything else to the clock, so that no good token is ever refused:

* Running services look at the file at most once a second (:data:`CHECK_INTERVAL`), and at once when they meet a
  ``kid`` that they do not know.
* A new key signs only :data:`ACTIVATION_DELAY` seconds after it was added: all services know it by then.
* Its predecessor verifies until the last token that it can have signed has expired, and is then gone.

``python -m heartguard.keyring list|rotate`` does what ``heartguard keys`` does, where that is not installed.
"""

import argparse
import base64
import fcntl
import hashlib
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import msgspec

from .local.errors import SetupError
from .local.files import write_private
from .logs import log
from .settings import KeySettings, SettingsError, load

CHECK_INTERVAL = 1.0
"""Seconds between two looks at the file."""
ACTIVATION_DELAY = 30
"""Seconds from a key's making to its first signature: time to be noticed, and for clocks that differ."""
MARGIN = 60
"""Seconds that a retired key verifies beyond its last token, for services whose clock is behind."""
LONGEST_ACCESS = 1440 * 60
"""Seconds that an access token can live at most (JWT_EXPIRES_IN)."""
SECRET_BYTES = 48


@dataclass(frozen=True)
class KeyRing:
    """The keys of this moment, by ``kid``. The newest signs; all verify."""

    keys: Mapping[str, bytes]
    newest: str

    @classmethod
    def from_secret(cls, secret: bytes) -> "KeyRing":
        """The ring that ``JWT_SECRET`` alone makes."""
        kid = kid_of(secret)
        return cls({kid: secret}, kid)

    def current(self) -> "KeyRing":
        return self

    def reread(self) -> "KeyRing":
        return self


class Ring(Protocol):
    """Where the keys come from. ``current`` is cheap enough for every request; ``reread`` looks anew."""

    def current(self) -> KeyRing: ...

    def reread(self) -> KeyRing: ...


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One key of the file. Times are Unix seconds; a key without ``verifies_until`` has no successor yet."""

    kid: str
    secret: str
    """In base64."""
    signs_from: float
    verifies_until: float | None = None

    @classmethod
    def of(cls, secret: bytes, signs_from: float) -> "Key":
        return cls(kid=kid_of(secret), secret=base64.b64encode(secret).decode(), signs_from=signs_from)

    def verifies(self, now: float) -> bool:
        return self.verifies_until is None or now < self.verifies_until


class _Content(msgspec.Struct):
    keys: list[Key]


class KeyRingFile:
    """The ring as the file tells it. Thread-safe; there is no lock on the way of an ordinary request.

    A file that cannot be read is an error when the service starts. Later the last good ring stays in use.
    """

    def __init__(self, secret: bytes, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._keys: Sequence[Key] = [Key.of(secret, 0.0)]
        self._failing = False
        try:
            self._look()
        except (OSError, ValueError) as error:
            raise SettingsError(f"JWT_KEYRING_FILE: {file} cannot be read ({error})") from None
        self._ring = ring_at(self._keys, time.time())
        self._next_look = time.monotonic() + CHECK_INTERVAL

    def current(self) -> KeyRing:
        """The ring of this moment: the same object for as long as nothing in it changes."""
        if time.monotonic() >= self._next_look and self._lock.acquire(blocking=False):
            try:
                self._update()
            finally:
                self._lock.release()
        return self._ring

    def reread(self) -> KeyRing:
        """The ring as the file has it now."""
        with self._lock:
            self._update()
        return self._ring

    def _update(self) -> None:
        self._next_look = time.monotonic() + CHECK_INTERVAL
        try:
            self._look()
            self._failing = False
        except (OSError, ValueError) as error:
            if not self._failing:
                log.error("key ring cannot be read; the last one stays in use", error=repr(error))
            self._failing = True
        ring = ring_at(self._keys, time.time())
        if ring != self._ring:
            self._ring = ring
            log.info("key ring", kids=list(ring.keys), signs=ring.newest)

    def _look(self) -> None:
        """Read the file where it is another than last time. One that never was is no error, one that went is."""
        try:
            found = self._file.stat()
        except FileNotFoundError:
            if self._seen is None:
                return
            raise
        seen = (found.st_mtime_ns, found.st_ino, found.st_size)
        if seen != self._seen:
            self._keys = read(self._file)
            self._seen = seen


def open_ring(secret: bytes, file: Path | None) -> Ring:
    """The ring that a service signs and verifies with. Raises :class:`SettingsError` for an unreadable file."""
    return KeyRing.from_secret(secret) if file is None else KeyRingFile(secret, file)


def kid_of(secret: bytes) -> str:
    """The key's name: a hash, so that all services agree on it."""
    return hashlib.sha256(b"heartguard kid\0" + secret).hexdigest()[:16]


def ring_at(keys: Sequence[Key], now: float) -> KeyRing:
    """The keys that verify at ``now``, and the one that signs: the latest whose time has come."""
    living = [key for key in keys if key.verifies(now)]
    begun = [key for key in living if key.signs_from <= now] or living
    newest = max(begun, key=lambda key: key.signs_from)
    return KeyRing({key.kid: base64.b64decode(key.secret) for key in living}, newest.kid)


def read(file: Path) -> list[Key]:
    """The file's keys. Raises OSError, or ValueError where it is no key ring."""
    try:
        keys = msgspec.json.decode(file.read_bytes(), type=_Content).keys
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    if not any(key.verifies_until is None for key in keys):
        raise ValueError("no key without an end")
    for key in keys:
        if kid_of(base64.b64decode(key.secret, validate=True)) != key.kid:
            raise ValueError(f"the key {key.kid} is not the one of that name")
    return keys


def stored(settings: KeySettings) -> list[Key]:
    """The keys in use: the file's, or the first one."""
    try:
        return read(needed_file(settings))
    except FileNotFoundError:
        return [Key.of(settings.jwt_secret, 0.0)]


def rotate(settings: KeySettings, *, delay: float = ACTIVATION_DELAY, compromised: bool = False) -> Key:
    """Add a key that signs from ``delay`` seconds on, and drop those whose last token has expired.

    ``compromised`` drops all others at once: every token dies, and everybody has to sign in again.
    """
    file = needed_file(settings)
    with _alone(file):
        now = time.time()
        key = Key.of(secrets.token_bytes(SECRET_BYTES), now if compromised else now + delay)
        older = [] if compromised else [_retired(old, key, settings) for old in stored(settings) if old.verifies(now)]
        write_private(file, msgspec.json.format(msgspec.json.encode(_Content([*older, key]))).decode() + "\n")
    return key


def _retired(old: Key, successor: Key, settings: KeySettings) -> Key:
    if old.verifies_until is not None:
        return old
    last = max(old.signs_from, successor.signs_from) + max(settings.refresh_token_ttl, LONGEST_ACCESS)
    return msgspec.structs.replace(old, verifies_until=last + MARGIN)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Two rotations at once follow each other. Raises BlockingIOError after the other has had three seconds."""
    descriptor = os.open(file.with_name(file.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        for _ in range(30):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
        else:
            raise BlockingIOError(f"another rotation of {file} does not end")
        yield
    finally:
        os.close(descriptor)


def needed_file(settings: KeySettings) -> Path:
    if settings.jwt_keyring_file is None:
        raise SettingsError("JWT_KEYRING_FILE: is needed to rotate keys, and the same for all services")
    return settings.jwt_keyring_file


def described(keys: Sequence[Key], now: float) -> Iterator[tuple[str, str, str, str]]:
    """Of each key: ``kid``, what it does at ``now``, from when it signs and until when it verifies. No secrets."""
    signing = ring_at(keys, now).newest
    for key in keys:
        state = "signs" if key.kid == signing else "waits" if key.signs_from > now else "verifies"
        if not key.verifies(now):
            state = "expired"
        first = "the beginning" if key.signs_from == 0 else _time(key.signs_from)
        yield key.kid, state, first, _time(key.verifies_until) if key.verifies_until else ""


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m heartguard.keyring", description="The keys that sign tokens.")
    parser.add_argument("action", choices=["list", "rotate"])
    parser.add_argument("--delay", type=float, default=ACTIVATION_DELAY, help="seconds until it signs (%(default)s)")
    parser.add_argument("--compromised", action="store_true", help="refuse all other keys at once")
    given = parser.parse_args(arguments)
    try:
        settings = load(KeySettings)
        if given.action == "rotate":
            rotate(settings, delay=given.delay, compromised=given.compromised)
        for row in described(stored(settings), time.time()):
            print("\t".join(row))
    except (SettingsError, SetupError, OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
