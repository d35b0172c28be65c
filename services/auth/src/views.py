"""The endpoints of the auth service."""

import uuid

from heartguard.context import Client
from heartguard.endpoint import Reply
from heartguard.endpoints import Endpoints
from heartguard.models.auth_token import (
    Introspection,
    IntrospectRequest,
    LoginRequest,
    LoginResponse,
    PasswordChange,
    Profile,
    RefreshRequest,
    RefreshResponse,
    RegisterRequest,
    RegisterResponse,
    RoleDescription,
    Roles,
)
from heartguard.models.auth_token import Sessions as SessionList
from heartguard.policy import Audience
from heartguard.tokens import Claims

from .accounts import Accounts
from .sessions import Sessions
from .sign_in import SignIn

endpoints = Endpoints("auth")

ROLES = Roles(
    roles=[
        RoleDescription(name="admin", description="Runs the organization: its people, roles, buckets and audit trail"),
        RoleDescription(name="manager", description="Sees the organization's people and data and edits its details"),
        RoleDescription(name="user", description="Reads and writes the own data"),
    ]
)


@endpoints.post(
    "/auth/register",
    audience=Audience.PUBLIC,
    status=201,
    audit="REGISTER",
    errors={
        403: "Registration is closed, or that role cannot be chosen here (`AUTH_006`)",
        409: "The e-mail address is registered already (`AUTH_002`)",
        422: "The request breaks the schema, or the password is too common or of the wrong length (`AUTH_005`)",
    },
)
def register(request: RegisterRequest, caller: Claims | None, accounts: Accounts) -> RegisterResponse:
    """Sign a person up."""
    return accounts.register(request, caller)


@endpoints.post(
    "/auth/login",
    audience=Audience.PUBLIC,
    audit="LOGIN",
    errors={
        401: "Wrong address or password (`AUTH_001`)",
        429: "Too many requests, or too many failed attempts on this account (`AUTH_004`)",
    },
)
def login(request: LoginRequest, client: Client, sign_in: SignIn) -> Reply[LoginResponse]:
    """Sign in."""
    done = sign_in.login(request, client)
    return Reply(done.answer, headers={"Set-Cookie": done.set_cookie})


@endpoints.post(
    "/auth/refresh",
    audience=Audience.PUBLIC,
    audit="TOKEN_REFRESH",
    errors={401: "The token is not good, or was used before: then its session was ended (`AUTH_003`)"},
)
def refresh(request: RefreshRequest, sessions: Sessions) -> RefreshResponse:
    """Trade a refresh token for a new pair; the old one is retired."""
    return sessions.refresh(request.refresh_token)


@endpoints.post("/auth/logout", audience=Audience.SIGNED_IN, audit="LOGOUT")
def logout(caller: Claims, sessions: Sessions) -> None:
    """Sign out: the token, its session and its refresh tokens are dead everywhere."""
    sessions.logout(caller)


@endpoints.put(
    "/auth/password",
    audience=Audience.SIGNED_IN,
    audit="PASSWORD_CHANGE",
    errors={
        422: "The current password is wrong, or the new one too common or of the wrong length (`AUTH_005`)",
        429: "Too many requests, or too many wrong passwords (`AUTH_004`)",
    },
)
def change_password(request: PasswordChange, caller: Claims, sign_in: SignIn) -> None:
    """Choose another password; every other session of the user ends."""
    sign_in.change_password(request, caller)


@endpoints.get("/auth/sessions", audience=Audience.SIGNED_IN)
def list_sessions(caller: Claims, sessions: Sessions) -> SessionList:
    """Where the caller is signed in."""
    return sessions.of(caller)


@endpoints.delete("/auth/sessions/{id}", audience=Audience.SIGNED_IN, audit="SESSION_END")
def end_session(id: uuid.UUID, caller: Claims, sessions: Sessions) -> None:  # noqa: A002 - its name in the path
    """End one of the caller's sessions, on a lost device perhaps."""
    sessions.end(caller, id)


@endpoints.get("/auth/profile", audience=Audience.SIGNED_IN, etag=True)
def profile(caller: Claims, accounts: Accounts) -> Profile:
    """The caller's account."""
    return accounts.profile(caller)


@endpoints.get("/auth/roles", audience=Audience.SIGNED_IN)
def roles() -> Roles:
    """The roles that a person can have."""
    return ROLES


@endpoints.post("/auth/token/introspect", audience=Audience.SERVICE)
def introspect(request: IntrospectRequest, caller: Claims, sessions: Sessions) -> Introspection:
    """Whether a token is good at this moment."""
    return sessions.introspect(request.token, caller)
