"""A file on its way in: on the disk, never in memory, measured and hashed as it comes."""

import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from heartguard.errors import ServiceError, Unavailable

ABANDONED = 3600.0
"""Seconds after which a file on its way in is nobody's."""
AHEAD = 1024 * 1024
"""Bytes that are brought to the disk together while more come in."""
_syncing = ThreadPoolExecutor(16, "sync")


class Spool:
    """Takes in a file of up to ``limit`` bytes, in ``folder``. Leaving the block removes what nobody has moved away.

    One that ``stays`` is brought to the disk while it comes in, so that :meth:`sync` has little left to wait for.
    """

    def __init__(self, folder: Path, limit: int, *, stays: bool = False) -> None:
        self.path = folder / f"{uuid.uuid4()}.part"
        self._limit = limit
        self._stays = stays
        self._hash = hashlib.sha256()
        self.size = self._ahead = 0

    def __enter__(self) -> "Spool":
        with _room():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.file = self.path.open("x+b", buffering=0)
        self._on_disk: Future[None] | None = None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._on_disk is not None:
            wait([self._on_disk])
        self.file.close()
        with suppress(FileNotFoundError):
            self.path.unlink()

    def write(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size > self._limit:
            raise ServiceError(413, f"The file is larger than {self._limit} bytes")
        self._hash.update(piece)
        with _room():
            rest = memoryview(piece)
            while rest:
                rest = rest[self.file.write(rest) :]
        if self._stays and self.size - self._ahead >= AHEAD:
            self._write_ahead()

    def _write_ahead(self) -> None:
        """Let the kernel begin to write: with this advice it does, and drops only what was on the disk before."""
        os.posix_fadvise(self.file.fileno(), self._ahead, self.size - self._ahead, os.POSIX_FADV_DONTNEED)
        self._ahead = self.size

    def begin_sync(self) -> None:
        """The file is complete: bring it to the disk while other things are done."""
        self._on_disk = _syncing.submit(os.fsync, self.file.fileno())

    def sync(self) -> None:
        """Wait until it is there. Raises OSError."""
        if self._on_disk is None:
            self.begin_sync()
        assert self._on_disk is not None
        self._on_disk.result()

    def restart(self) -> None:
        self.size = self._ahead = 0
        self._hash = hashlib.sha256()
        self.file.seek(0)
        self.file.truncate()

    @property
    def sha256(self) -> bytes:
        return self._hash.digest()


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable("There is no room for the file now") from error


def clear_abandoned(folder: Path) -> None:
    """Remove what is left of files whose process has died. Nobody takes :data:`ABANDONED` seconds over one."""
    for path in folder.glob("*.part"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - ABANDONED:
                path.unlink()
