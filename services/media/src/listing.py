"""Pages of stored files, newest first."""

import uuid
from datetime import datetime
from typing import Annotated, NamedTuple

from msgspec import Meta

from heartguard.database import Database
from heartguard.endpoint import MAX_ID
from heartguard.models.base import UNSET, UnsetType
from heartguard.models.media_item import MediaItems
from heartguard.paging import Page
from heartguard.tokens import Claims

from . import db
from .media import answer, wanted_owner


class Cursor(NamedTuple):
    """Where a list has come to."""

    created_at: datetime
    id: uuid.UUID


class ItemsPage(Page):
    """Which part of whose files."""

    owner_id: Annotated[int, Meta(ge=1, le=MAX_ID)] | UnsetType = UNSET


class Listing:
    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, page: ItemsPage, caller: Claims) -> MediaItems:
        owner = wanted_owner(caller, None if isinstance(page.owner_id, UnsetType) else page.owner_id)
        with self._database.transaction(caller.org_id) as tx:
            found = db.page(tx, caller.org_id, owner, page.after(Cursor), page.asked)
        shown, next_cursor = page.cut(found, lambda item: Cursor(item.created_at, item.id))
        return MediaItems(items=[answer(item) for item in shown], next_cursor=next_cursor)
