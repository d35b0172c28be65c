"""File names: what they may be, and what is made of them."""

import re
import unicodedata
import uuid
from typing import NamedTuple
from urllib.parse import quote

MAX_SAFE = 100
MAX_EXTENSION = 16
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of control and format characters, and of breaks: a name with them is not what it looks like."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_ORGANIZATION = re.compile(r"org_([1-9][0-9]{0,18})")
_OWNER = re.compile(r"user_([1-9][0-9]{0,18})")


def problem(file_name: str) -> str | None:
    """What is wrong with the name of a file, if anything is."""
    # What looks like a slash, or like two dots, becomes one here.
    plain = unicodedata.normalize("NFKC", file_name)
    if any(unicodedata.category(character) in _INVISIBLE for character in file_name):
        return "has control or invisible characters"
    if "/" in plain or "\\" in plain:
        return "must be a name without folders"
    if not plain.strip(" ."):
        return "is not the name of a file"
    return None


def safe(file_name: str) -> str:
    """A name of ASCII letters, digits, dots, dashes and underscores, not too many of them."""
    stem, dot, extension = file_name.rpartition(".")
    if not dot:
        return _ascii(file_name)[:MAX_SAFE] or "file"
    ending = _ascii(extension)[:MAX_EXTENSION]
    return f"{_ascii(stem)[:MAX_SAFE] or 'file'}.{ending}".rstrip(".")


def _ascii(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    letters = "".join(character for character in decomposed if not unicodedata.combining(character))
    return _UNSAFE.sub("_", letters).strip("._-")


def disposition(file_name: str) -> str:
    """A ``Content-Disposition`` header by which the file is saved, not shown (RFC 6266)."""
    return f"attachment; filename=\"{safe(file_name)}\"; filename*=UTF-8''{quote(file_name, safe='')}"


class ObjectName(NamedTuple):
    """``org_<id>/user_<id>/<uuid>/<file name made safe>``: built and read here only."""

    organization: str
    owner: str
    id: str
    file_name: str

    @classmethod
    def of(cls, org_id: int, owner_id: int, item: uuid.UUID, file_name: str) -> "ObjectName":
        return cls(f"org_{org_id}", f"user_{owner_id}", str(item), safe(file_name))

    @classmethod
    def parse(cls, text: str) -> "ObjectName | None":
        """The name, if the text is one that this service could have made."""
        parts = text.split("/")
        return cls(*parts) if len(parts) == 4 and cls(*parts).is_sound else None

    @property
    def is_sound(self) -> bool:
        """Whether the parts are what they should be; those that are cannot leave a folder."""
        return bool(
            _ORGANIZATION.fullmatch(self.organization)
            and _OWNER.fullmatch(self.owner)
            and _is_uuid(self.id)
            and _SAFE.fullmatch(self.file_name)
            and len(self.file_name) <= MAX_SAFE + 1 + MAX_EXTENSION
        )

    @property
    def org_id(self) -> int:
        return int(self.organization.removeprefix("org_"))

    def __str__(self) -> str:
        return "/".join(self)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
