"""Pages of stored files, newest first."""

import base64
import binascii
import uuid
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import urlencode

from msgspec import Meta

from heartguard.database import Database
from heartguard.endpoint import Query, Reply
from heartguard.errors import Invalid
from heartguard.models.base import UNSET, UnsetType
from heartguard.models.common import Detail
from heartguard.models.media_item import MediaItems
from heartguard.tokens import Claims

from . import db
from .media import answer, wanted_owner

Cursor = tuple[datetime, uuid.UUID]


class ItemsQuery(Query):
    """Which page of which files."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    cursor: str | UnsetType = UNSET
    owner_id: Annotated[int, Meta(ge=1, le=2**63 - 1)] | UnsetType = UNSET


class Listing:
    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, query: ItemsQuery, caller: Claims) -> Reply[MediaItems]:
        owner = wanted_owner(caller, None if query.owner_id is UNSET else query.owner_id)
        before = None if query.cursor is UNSET else _read_cursor(query.cursor)
        with self._database.transaction(caller.org_id) as tx:
            found = db.page(tx, caller.org_id, owner, before, query.limit + 1)
        items = [answer(item) for item in found[: query.limit]]
        if len(found) <= query.limit:
            return Reply(MediaItems(items=items))
        cursor = _cursor(found[query.limit - 1])
        again = {"limit": query.limit, "cursor": cursor}
        if query.owner_id is not UNSET:
            again["owner_id"] = query.owner_id
        link = f'</media/items?{urlencode(again)}>; rel="next"'
        return Reply(MediaItems(items=items, next_cursor=cursor), headers={"Link": link})


def _cursor(item: db.Item) -> str:
    text = f"{item.created_at.astimezone(UTC).isoformat()} {item.id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> Cursor:
    try:
        time, _, id_ = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(" ")
        return datetime.fromisoformat(time), uuid.UUID(id_)
    except (ValueError, binascii.Error):
        raise Invalid([Detail(path="?cursor", message="is not one that was given out")]) from None
