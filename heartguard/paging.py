"""Lists in pages: ``limit`` and ``cursor``, ``next_cursor`` and the ``Link`` header (section 1 of the contract).

A cursor says behind which entry the next page begins, by the key that the list is ordered by, not how many were
before it: whatever is added or removed meanwhile, nothing is shown twice and nothing passed over. It is no secret and
grants nothing; one that somebody made up just begins somewhere else.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .errors import Invalid
from .models.base import Answer, Query
from .models.common import Detail

MAX_LIMIT = 200

R = TypeVar("R")
K = TypeVar("K")


class Page(Query):
    """Which part of a list is asked for."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT)] = 50
    cursor: str | UnsetType = UNSET

    def after(self, key: type[K]) -> K | None:
        """The key of the last entry that was shown, None on the first page. Raises :class:`Invalid`."""
        if isinstance(self.cursor, UnsetType):
            return None
        try:
            padded = self.cursor + "=" * (-len(self.cursor) % 4)
            return msgspec.json.decode(urlsafe_b64decode(padded.encode("ascii")), type=key)
        except (msgspec.MsgspecError, ValueError):  # of the latter kind are bad base64 and text other than ASCII
            raise Invalid([Detail(path="?cursor", message="is none that a page here came with")]) from None

    def cut(self, rows: Sequence[R], key: Callable[[R], Any]) -> tuple[Sequence[R], str | UnsetType]:
        """The page and, where there is more, the cursor of the next; ``rows`` are up to :attr:`asked` of them."""
        if len(rows) <= self.limit:
            return rows, UNSET
        shown = rows[: self.limit]
        return shown, urlsafe_b64encode(msgspec.json.encode(key(shown[-1]))).decode().rstrip("=")

    @property
    def asked(self) -> int:
        """How many rows to ask the store for: one more than is shown, to know whether there is more."""
        return self.limit + 1


def next_link(answer: Answer, path: str, args: Mapping[str, str]) -> str | None:
    """The ``Link`` header of an answer that has a next page: the same question with its cursor."""
    cursor = getattr(answer, "next_cursor", UNSET)
    return None if cursor is UNSET else f'<{path}?{urlencode({**args, "cursor": cursor})}>; rel="next"'
