"""Users as they are seen, and what they may change themselves."""

from typing import Annotated

from msgspec import Meta

from heartguard import audit
from heartguard.database import Database
from heartguard.endpoint import MAX_ID
from heartguard.errors import Invalid, NotFound, Unauthorized
from heartguard.models.base import UNSET, UnsetType, given
from heartguard.models.common import Detail
from heartguard.models.user import MAX_PREFERENCE_BYTES, User, UserUpdate
from heartguard.models.user import Users as UserList
from heartguard.paging import Page
from heartguard.preconditions import IfMatch
from heartguard.schema.pointer import pointer
from heartguard.tokens import Claims

from . import db

Key = Annotated[int, Meta(ge=0, le=MAX_ID)]
"""What the list is ordered by: ids are given in ascending order."""


class Users:
    def __init__(self, database: Database) -> None:
        self._database = database

    def me(self, caller: Claims) -> User:
        """Raises :class:`Unauthorized` where the caller is gone."""
        with self._database.transaction(caller.org_id) as tx:
            found = db.find(tx, caller.org_id, caller.user_id)
        if found is None:
            raise Unauthorized
        return answer(found)

    def update_me(self, changes: UserUpdate, read_as: IfMatch, caller: Claims) -> User:
        """Raises :class:`Invalid`, what :meth:`IfMatch.check` does, :class:`Unauthorized` where the caller is gone."""
        _check_bytes(changes.preferences)
        with self._database.transaction(caller.org_id) as tx:
            if not db.lock(tx, caller.org_id, caller.user_id):
                raise Unauthorized
            read_as.check(answer(db.found(tx, caller.org_id, caller.user_id)))
            db.update(tx, caller.org_id, caller.user_id, changes)
            audit.record(tx, changed=given(changes))
            return answer(db.found(tx, caller.org_id, caller.user_id))

    def find(self, user_id: int, caller: Claims) -> User:
        """Raises :class:`NotFound` for a user of another organization too."""
        with self._database.transaction(caller.org_id) as tx:
            found = db.find(tx, caller.org_id, user_id)
        if found is None:
            raise NotFound
        return answer(found)

    def page(self, page: Page, caller: Claims) -> UserList:
        """The organization's users, newest first."""
        before: int | None = page.after(Key)
        with self._database.transaction(caller.org_id) as tx:
            rows = db.list_users(tx, caller.org_id, before, page.asked)
        shown, next_cursor = page.cut(rows, lambda stored: stored.id)
        return UserList(items=[answer(stored) for stored in shown], next_cursor=next_cursor)


def _check_bytes(preferences: "dict[str, float | bool | str] | UnsetType") -> None:
    if isinstance(preferences, UnsetType):
        return
    too_long = [
        Detail(path=pointer(("preferences", name)), message=f"must have at most {MAX_PREFERENCE_BYTES} bytes in UTF-8")
        for name, value in preferences.items()
        if isinstance(value, str) and len(value.encode()) > MAX_PREFERENCE_BYTES
    ]
    if too_long:
        raise Invalid(too_long)


def answer(stored: db.Stored) -> User:
    return User(
        id=stored.id,
        email=stored.email,
        role=stored.role,
        org_id=stored.org_id,
        preferences={name: _whole(value) for name, value in stored.preferences.items()},
        created_at=stored.created_at,
        updated_at=stored.updated_at,
        first_name=UNSET if stored.first_name is None else stored.first_name,
        last_name=UNSET if stored.last_name is None else stored.last_name,
    )


def _whole(value: float | bool | str) -> int | float | bool | str:
    """A number without a fraction as it was sent, most likely: without a point."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53 else value
