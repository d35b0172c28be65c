"""Types of the auth service: accounts, sessions, tokens."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from .base import UNSET, Answer, Email, Request, Role, ShownName, Text, UnsetType

Secret = Annotated[Text, Meta(max_length=4096)]
"""A password or token as sent: bounded, its rules are checked where it is used."""


class RegisterRequest(Request):
    """Sign a person up."""

    email: Email
    password: Secret
    role: Role = "user"
    first_name: ShownName | UnsetType = UNSET
    last_name: ShownName | UnsetType = UNSET
    organization_name: ShownName | UnsetType = UNSET


class RegisterResponse(Answer):
    user_id: int
    email: str
    role: Role
    org_id: int


class LoginRequest(Request):
    """Sign in."""

    email: Email
    password: Secret


class LoginResponse(Answer):
    access_token: str
    refresh_token: str
    expires_in: int
    """Seconds the access token lives."""
    token_type: Literal["Bearer"] = "Bearer"


class RefreshRequest(Request):
    """Trade a refresh token for a new pair."""

    refresh_token: Secret


class RefreshResponse(LoginResponse):
    """The new pair; the old refresh token is retired."""


class Profile(Answer):
    id: int
    email: str
    role: Role
    org_id: int
    created_at: datetime
    first_name: str | UnsetType = UNSET
    last_name: str | UnsetType = UNSET
    last_login_at: datetime | UnsetType = UNSET


class PasswordChange(Request):
    """Choose another password; every other session of the user ends."""

    current_password: Secret
    new_password: Secret


class Session(Answer):
    """A sign-in that is still good for something, and the device it came from (empty where that is not known)."""

    id: str
    created_at: datetime
    last_used_at: datetime
    """When its tokens were last refreshed."""
    ip: str
    user_agent: str
    current: bool
    """Whether it is the caller's own."""


class Sessions(Answer):
    sessions: list[Session]


class RoleDescription(Answer):
    name: Role
    description: str


class Roles(Answer):
    roles: list[RoleDescription]


class IntrospectRequest(Request):
    """Ask whether a token is good. One that cannot be any, however long, is not: that is no error."""

    token: Text


class Introspection(Answer):
    """RFC 7662: everything but ``active`` is there only for an active token."""

    active: bool
    sub: str | UnsetType = UNSET
    role: str | UnsetType = UNSET
    org_id: int | UnsetType = UNSET
    sid: str | UnsetType = UNSET
    jti: str | UnsetType = UNSET
    exp: int | UnsetType = UNSET
    iat: int | UnsetType = UNSET
    typ: Literal["access", "refresh"] | UnsetType = UNSET
