"""Files that only their owner may read."""

import os
import secrets
from pathlib import Path

from .errors import explain

SOCKET_PATH_LIMIT = 107
"""Bytes that Linux allows in the path of a Unix socket (``sun_path`` less its final zero; unix(7))."""


def private_folder(path: Path) -> Path:
    """Make the folder, or see to it that nobody else may enter it."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise explain(error, f"making the folder {path}") from error
    return path


def write_private(path: Path, content: str) -> None:
    """Put ``content`` in place whole or not at all, readable by its owner only."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise explain(error, f"writing {path}") from error


def generated_secret(path: Path) -> str:
    """The secret kept in ``path``, made on first use. It holds only characters that need no quoting in a URL."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32) + "\n")
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise explain(error, f"reading {path}") from error
