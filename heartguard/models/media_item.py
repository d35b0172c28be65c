"""Types of the media service."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from .base import UNSET, Answer, Request, UnsetType, full

_TOKEN = r"[A-Za-z0-9!#$&^_.+\-]{1,64}"

_NAME_CHARACTERS = (
    r"[ -.0-Z\[\]_`a-z{|}~^"
    "\u00a0-\u00ac\u00ae-\u061b\u061d-\u180d\u180f-\u200a\u2010-\u2027\u202f-\u205f\u2070-\ud7ff"
    "\ue000-\ufe67\ufe69-\ufefe\uff00-\uff0e\uff10-\uff3b\uff3d-\ufff8\ufffc-\ufffd\U00010000-\U000dffff]"
)
"""All but control and invisible characters, slashes, and what looks like slashes."""

FileName = Annotated[
    str,
    full(
        f"{_NAME_CHARACTERS}+",
        max_length=255,
        description="A file's name, without folders, control or invisible characters",
    ),
]
MediaType = Annotated[
    str, full(rf"{_TOKEN}/{_TOKEN}( *;[ -~]{{0,128}})?", description="A media type such as image/png or text/csv")
]
Base64 = Annotated[
    str,
    full(
        "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?",
        min_length=1,
        description="Base64 (RFC 4648, section 4), padded, without line breaks",
    ),
]


class MediaUpload(Request):
    """A file to store."""

    file_name: FileName
    content_type: MediaType
    data_base64: Base64


class MediaItem(Answer):
    """What is known of a stored file; ``size`` is in bytes, ``sha256`` in hexadecimal."""

    id: uuid.UUID
    file_name: str
    content_type: str
    size: int
    sha256: str
    owner_id: int
    created_at: datetime


class MediaItems(Answer):
    """Newest first."""

    items: list[MediaItem]
    next_cursor: str | UnsetType = UNSET


class SignedUrl(Answer):
    """Where the file itself can be had, without a token, up to ``expires_at``."""

    url: str
    method: Literal["GET"]
    expires_at: datetime
