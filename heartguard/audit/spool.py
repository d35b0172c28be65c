"""Where events wait while Valkey cannot take them: files, each of one process, written through to the disk.

Besides, what was sent is kept for some seconds (without writing it through: that the file system knows it is enough
for it to survive ``kill -9``). Valkey answers before its append-only file is written where the disk is busy, for up to
two seconds; so what a Valkey process took that is no more is sent again.

A line is ``<CRC-32> <event>``. A process holds a lock (flock) on its files for as long as it lives; the
files of one that died are adopted by whoever gets the lock. What is drained is sent from the file's
beginning, and again from there where that is interrupted: the events keep their ids, so the audit
service records each once. A line that was torn by a crash was never acknowledged, and is left out.
"""

import fcntl
import os
import secrets
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..logs import log

LIMIT = 64 * 2**20
"""Bytes that one process may have in its files."""
SUFFIX = ".spool"
SENT = ".sent"
KEPT_FOR = 5.0
"""Seconds; twice as long as Valkey may take to write what it has answered."""
ROTATED_AFTER = 2.0
"""Seconds in which what was sent goes into the same file."""
BATCH = 200

Send = Callable[[Sequence[bytes]], object]


class SpoolFull(Exception):
    """The spool is at its limit, or the disk does not take it."""


class _Segment:
    """One file, locked."""

    def __init__(self, path: Path, run_id: bytes | None = None) -> None:
        self.run_id = run_id
        """The Valkey process that has taken what is in it; None where none has."""
        self.begun = self.written_at = time.monotonic()
        self.path = path.with_suffix(".new")  # under which nobody adopts it before it is locked
        self.file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.size = 0
        self._written = 0
        self._synced = 0
        self._syncing = threading.Lock()
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.path = self.path.rename(path)
            if run_id is None:
                _sync_folder(path.parent)
        except BaseException:
            self.discard()
            raise

    def write(self, lines: bytes) -> int:
        """Append; the number to give to :meth:`sync`. Whole or, with an OSError, not at all."""
        try:
            if os.write(self.file, lines) != len(lines):
                raise OSError("The disk is full")
        except OSError:
            os.ftruncate(self.file, self.size)
            raise
        self.size += len(lines)
        self._written += 1
        self.written_at = time.monotonic()
        return self._written

    def sync(self, number: int) -> None:
        """Return when that write is on the disk. Who waits meanwhile is served by the same fsync."""
        with self._syncing:
            if self._synced >= number:
                return
            written = self._written
            os.fsync(self.file)
            self._synced = written

    def settle(self) -> None:
        """Wait for who is writing through at the moment; nobody may write any more."""
        self.sync(self._written)

    def leave(self) -> None:
        os.close(self.file)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self.file)


class Spool:
    """The files of this process in ``folder``; ``limit`` is in bytes. Thread-safe."""

    def __init__(self, folder: Path, service: str, limit: int = LIMIT) -> None:
        self._folder = folder
        self._service = service
        self._limit = limit
        self._lock = threading.Lock()
        self._draining = threading.Lock()
        self._current: _Segment | None = None
        self._waiting: list[_Segment] = []
        self._sent: list[_Segment] = []

    @property
    def size(self) -> int:
        """Bytes that wait in this process's files."""
        current = self._current
        return sum(segment.size for segment in self._waiting) + (current.size if current else 0)

    def check(self) -> None:
        """Raises :class:`SpoolFull` where an event could not be put here."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SpoolFull from error
        if self.size >= self._limit or not os.access(self._folder, os.W_OK | os.X_OK):
            raise SpoolFull

    def append(self, events: Sequence[bytes]) -> None:
        """Put them on the disk. Raises :class:`SpoolFull`."""
        lines = b"".join(_line(event) for event in events)
        try:
            with self._lock:
                if self.size + len(lines) > self._limit:
                    raise SpoolFull
                segment = self._current = self._current or _Segment(self._path(SUFFIX))
                number = segment.write(lines)
            segment.sync(number)
        except OSError as error:
            raise SpoolFull from error

    def keep(self, events: Sequence[bytes], run_id: bytes) -> None:
        """Keep what the Valkey process has taken, until :meth:`release`; where the disk is full, it does without."""
        lines = b"".join(_line(event) for event in events)
        try:
            with self._lock:
                self._to_keep(run_id).write(lines)
        except (OSError, SpoolFull) as error:
            log.warning("audit spool: what was sent is not kept", error=repr(error))

    def _to_keep(self, run_id: bytes) -> _Segment:
        newest = self._sent[-1] if self._sent else None
        if newest and newest.run_id == run_id and time.monotonic() - newest.begun < ROTATED_AFTER:
            return newest
        if sum(segment.size for segment in self._sent) > self._limit:
            raise SpoolFull
        self._sent.append(_Segment(self._path(SENT), run_id))
        return self._sent[-1]

    def release(self, run_id: bytes) -> None:
        """Let go of what the Valkey process, which is there now, has had the time to write; what another one took
        waits to be sent again."""
        with self._lock:
            sent, self._sent = self._sent, []
            for segment in sent:
                if segment.run_id != run_id:
                    self._waiting.append(segment)
                elif time.monotonic() - segment.written_at > KEPT_FOR:
                    segment.discard()
                else:
                    self._sent.append(segment)

    def drain(self, send: Send) -> int:
        """Send what waits here, and what processes left that are dead; how many events that was.

        What ``send`` raises ends it; all that was not sent stays.
        """
        with self._draining:
            with self._lock:
                if self._current:
                    self._waiting.append(self._current)
                    self._current = None
            sent = 0
            while self._waiting:
                segment = self._waiting[0]
                segment.settle()
                sent += _send(segment.file, segment.path, send)
                segment.discard()
                del self._waiting[0]
            return sent + self._adopt(send)

    def close(self) -> None:
        """Leave the files to others."""
        with self._draining, self._lock:
            for segment in [*self._waiting, *self._sent, *([self._current] if self._current else [])]:
                segment.settle()
                segment.leave()
            self._waiting, self._sent, self._current = [], [], None

    def _adopt(self, send: Send) -> int:
        sent = 0
        for path in sorted([*self._folder.glob(f"*{SUFFIX}"), *self._folder.glob(f"*{SENT}")]):
            try:
                file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue  # gone already, or another user's
            try:
                if _locks(file, path):
                    sent += _send(file, path, send)
                    path.unlink()
            finally:
                os.close(file)
        return sent

    def _path(self, suffix: str) -> Path:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._folder / f"{self._service}-{os.getpid()}-{secrets.token_hex(4)}{suffix}"


def _locks(file: int, path: Path) -> bool:
    """Whether the file's owner is dead, and the file is ours to drain now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(file).st_ino == path.stat().st_ino  # else somebody else has drained it meanwhile
    except OSError:
        return False


def _line(event: bytes) -> bytes:
    return b"%08x %b\n" % (zlib.crc32(event), event)


def _send(file: int, path: Path, send: Send) -> int:
    sent = 0
    batch: list[bytes] = []
    for event in _events(file, path):
        batch.append(event)
        if len(batch) == BATCH:
            send(batch)
            sent += len(batch)
            batch = []
    if batch:
        send(batch)
    return sent + len(batch)


def _events(file: int, path: Path) -> Iterator[bytes]:
    with os.fdopen(os.dup(file), "rb") as lines:
        lines.seek(0)
        for line in lines:
            checksum, _, event = line.rstrip(b"\n").partition(b" ")
            if line.endswith(b"\n") and checksum == b"%08x" % zlib.crc32(event):
                yield event
            else:
                log.warning("audit spool: a torn line", file=path.name, bytes=len(line))


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
