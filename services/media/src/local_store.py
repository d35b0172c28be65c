"""The store in a directory: ``objects/org_7/user_2/<uuid>/<name>``.

Folders are opened one inside the other, never through a symbolic link, and by names that
:class:`.names.ObjectName` has checked: no name leads out of the directory.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import IO

from heartguard.errors import Unavailable
from heartguard.settings import SettingsError

from .names import ObjectName
from .signing import LinkSigner
from .spool import Spool
from .store import PAGE, Download, Link

ABANDONED = 3600.0
"""Seconds after which an empty folder is nobody's who is about to put something there."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalStore:
    """Implements :class:`.store.Store`. Links work for ``ttl`` seconds and less than one more."""

    stays = True

    def __init__(self, folder: Path, signer: LinkSigner, ttl: int, clock: Callable[[], float] = time.time) -> None:
        self._root = folder / "objects"
        self._signer = signer
        self._ttl = ttl
        self._clock = clock
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"HEARTGUARD_DATA: {folder} cannot be made ({error.strerror})") from None

    def prepare(self, content: Spool) -> None:
        content.begin_sync()

    def put(self, name: ObjectName, content: Spool, content_type: str) -> None:  # noqa: ARG002 - the link tells it
        """What is not on the disk yet goes there all at once: only then does anybody hear of it."""
        with _failures(), self._folders(name, make=True) as folders:
            os.rename(content.path, name.file_name, dst_dir_fd=folders[-1])
            content.sync()
            for folder in reversed(folders):  # others may have made the outer ones just now
                os.fsync(folder)

    def remove(self, name: ObjectName) -> None:
        with _failures(), suppress(FileNotFoundError), self._folders(name) as (*_, owners, folder):
            with suppress(FileNotFoundError):
                os.unlink(name.file_name, dir_fd=folder)
                os.fsync(folder)
            os.rmdir(name.id, dir_fd=owners)

    def has(self, name: ObjectName) -> bool:
        with _failures():
            try:
                with self._folders(name) as folders:
                    os.stat(name.file_name, dir_fd=folders[-1], follow_symlinks=False)
            except FileNotFoundError:
                return False
        return True

    def names(self) -> Iterator[list[ObjectName]]:
        page: list[ObjectName] = []
        for name in self._walk():
            page.append(name)
            if len(page) == PAGE:
                yield page
                page = []
        if page:
            yield page

    def sign(self, download: Download) -> Link:
        expires = ceil(self._clock()) + self._ttl
        target = self._signer.link(
            download.name, expires=expires, file_name=download.file_name, content_type=download.content_type
        )
        return Link(url=download.origin + target, expires_at=datetime.fromtimestamp(expires, UTC))

    def redeem(self, signature: str, name: ObjectName, *, expires: int, file_name: str, content_type: str) -> bool:
        """Whether such a link was given out and still works."""
        good = self._signer.is_good(signature, name, expires=expires, file_name=file_name, content_type=content_type)
        return good and self._clock() <= expires

    def open(self, name: ObjectName) -> IO[bytes]:
        """The object's content. Raises FileNotFoundError."""
        with _failures(), self._folders(name) as folders:
            return os.fdopen(os.open(name.file_name, _FILE, dir_fd=folders[-1]), "rb")

    def check(self) -> None:
        if not os.access(self._root, os.R_OK | os.W_OK | os.X_OK):
            raise Unavailable(f"{self._root} cannot be written to")

    @contextmanager
    def _folders(self, name: ObjectName, *, make: bool = False) -> Iterator[list[int]]:
        """The folders that lead to the object, opened, from the outermost to the one it is in."""
        opened = [self._open_root()]
        try:
            for part in name[:3]:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o700, dir_fd=opened[-1])
                opened.append(os.open(part, _FOLDER, dir_fd=opened[-1]))
            yield opened
        finally:
            for folder in opened:
                os.close(folder)

    def _open_root(self) -> int:
        """That the directory is away, as with a disk that is not mounted, says nothing of the objects in it."""
        try:
            return os.open(self._root, _FOLDER)
        except FileNotFoundError as error:
            raise Unavailable("The files cannot be reached now") from error

    def _walk(self) -> Iterator[ObjectName]:
        self.check()
        for organization in _listed(self._root):
            for owner in _listed(self._root / organization):
                for item in _listed(self._root / organization / owner):
                    folder = self._root / organization / owner / item
                    files = _listed(folder)
                    if not files:
                        _forget_abandoned(folder)
                    for file_name in files:
                        name = ObjectName(organization, owner, item, file_name)
                        if name.is_sound:
                            yield name


def _listed(folder: Path) -> list[str]:
    """What is in the folder, in the order that the names have once ``/`` and more follows them."""
    try:
        return sorted((path.name for path in folder.iterdir()), key=lambda name: f"{name}/".encode())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _forget_abandoned(folder: Path) -> None:
    with suppress(OSError):
        if folder.stat().st_mtime < time.time() - ABANDONED:
            folder.rmdir()


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unavailable("The file cannot be stored now") from error
