"""The endpoints of the user service (section 5 of the contract)."""

from heartguard.endpoints import Endpoints
from heartguard.models.user import RoleChange, User, UserUpdate
from heartguard.models.user import Users as UserList
from heartguard.paging import Page
from heartguard.policy import Audience
from heartguard.preconditions import IfMatch
from heartguard.tokens import Claims

from .members import Members
from .users import Users

endpoints = Endpoints("user")

LAST_ADMIN = "The last admin must stay (`USER_001`)"
MAX_UPDATE = 512 * 1024
"""Bytes: fifty preferences of 1 KiB, however JSON or XML escapes them."""


@endpoints.get("/users/me", audience=Audience.SIGNED_IN, etag=True)
def read_me(caller: Claims, users: Users) -> User:
    """The caller."""
    return users.me(caller)


@endpoints.put("/users/me", audience=Audience.SIGNED_IN, audit="USER_UPDATE", etag=True, max_body=MAX_UPDATE)
def update_me(changes: UserUpdate, read_as: IfMatch, caller: Claims, users: Users) -> User:
    """Change the caller's names or replace the preferences."""
    return users.update_me(changes, read_as, caller)


@endpoints.get("/users", audience=Audience.MANAGER)
def list_users(page: Page, caller: Claims, users: Users) -> UserList:
    """The organization's users, newest first."""
    return users.page(page, caller)


@endpoints.get("/users/{id}", audience=Audience.ADMIN, etag=True)
def read(id: int, caller: Claims, users: Users) -> User:  # noqa: A002 - its name in the path
    """One of the organization's users."""
    return users.find(id, caller)


@endpoints.put("/users/{id}/role", audience=Audience.ADMIN, audit="ROLE_CHANGE", etag=True, errors={409: LAST_ADMIN})
def change_role(id: int, change: RoleChange, read_as: IfMatch, caller: Claims, members: Members) -> User:  # noqa: A002
    """Give one of the organization's users another role, and end the user's sessions."""
    return members.change_role(id, change.role, read_as, caller)


@endpoints.delete("/users/{id}", audience=Audience.ADMIN, audit="USER_DELETE", errors={409: LAST_ADMIN})
def delete(id: int, caller: Claims, members: Members) -> None:  # noqa: A002
    """Remove one of the organization's users, who is signed out everywhere; the address is free again."""
    members.delete(id, caller)
