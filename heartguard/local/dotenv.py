"""The secrets of a first start: made, and put into ``.env``, unless they are set already."""

import secrets
from collections.abc import Mapping
from pathlib import Path

from ..settings import ROOT
from .errors import explain
from .files import write_private

ADMIN_EMAIL = "admin@heartguard.io"
HEADING = "# Made by the first start. See .env.example for what else can be set here.\n"


def complete(environ: Mapping[str, str], file: Path = ROOT / ".env") -> dict[str, str]:
    """Make what is missing from ``environ``, add it to ``file`` (mode 600), and return it.

    Where nothing secret is missing, nothing is written.
    """
    made: dict[str, str] = {}
    if not _is_set(environ, "JWT_SECRET"):
        made["JWT_SECRET"] = secrets.token_urlsafe(48)
    if not _is_set(environ, "BOOTSTRAP_ADMIN_PASSWORD"):
        if not _is_set(environ, "BOOTSTRAP_ADMIN_EMAIL"):
            made["BOOTSTRAP_ADMIN_EMAIL"] = ADMIN_EMAIL
        made["BOOTSTRAP_ADMIN_PASSWORD"] = secrets.token_urlsafe(18)
    if made:
        try:
            before = file.read_text(encoding="utf-8") if file.exists() else HEADING
        except OSError as error:
            raise explain(error, f"reading {file}") from error
        if not before.endswith("\n"):
            before += "\n"
        write_private(file, before + "".join(f"{name}={value}\n" for name, value in made.items()))
    return made


def _is_set(environ: Mapping[str, str], name: str) -> bool:
    return bool(environ.get(name) or environ.get(f"{name}_FILE"))
