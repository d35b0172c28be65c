"""Types of the user service."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from .base import UNSET, Answer, Request, Role, ShownName, Text, UnsetType, Update

MAX_PREFERENCES = 50
MAX_PREFERENCE_BYTES = 1024

PreferenceName = Annotated[Text, Meta(min_length=1, max_length=100)]
PreferenceValue = float | bool | Annotated[Text, Meta(max_length=MAX_PREFERENCE_BYTES)]
"""The service also counts a text's bytes, in UTF-8: a schema can only count characters."""


class UserUpdate(Update):
    """Change what is given; given preferences replace all there were."""

    first_name: ShownName | UnsetType = UNSET
    last_name: ShownName | UnsetType = UNSET
    preferences: Annotated[dict[PreferenceName, PreferenceValue], Meta(max_length=MAX_PREFERENCES)] | UnsetType = UNSET


class RoleChange(Request):
    """Give a user another role; the user's old tokens die."""

    role: Role


class User(Answer):
    id: int
    email: str
    role: Role
    org_id: int
    preferences: dict[str, int | float | bool | str]
    created_at: datetime
    updated_at: datetime
    first_name: str | UnsetType = UNSET
    last_name: str | UnsetType = UNSET


class Users(Answer):
    items: list[User]
    next_cursor: str | UnsetType = UNSET
