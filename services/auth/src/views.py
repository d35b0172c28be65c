"""The endpoints of the auth service."""

from heartguard.context import Client
from heartguard.endpoint import Endpoints
from heartguard.models.auth_token import (
    Introspection,
    IntrospectRequest,
    LoginRequest,
    LoginResponse,
    Profile,
    RefreshRequest,
    RefreshResponse,
    RegisterRequest,
    RegisterResponse,
    RoleDescription,
    Roles,
)
from heartguard.policy import Audience
from heartguard.tokens import Claims

from .accounts import Accounts
from .sessions import Sessions

endpoints = Endpoints("auth")

ROLES = Roles(
    roles=[
        RoleDescription(name="admin", description="Runs the organization: its people, roles, buckets and audit trail"),
        RoleDescription(name="manager", description="Sees the organization's people and data and edits its details"),
        RoleDescription(name="user", description="Reads and writes the own data"),
    ]
)


@endpoints.post("/auth/register", audience=Audience.PUBLIC, status=201, audit="REGISTER")
def register(request: RegisterRequest, caller: Claims | None, accounts: Accounts) -> RegisterResponse:
    """Sign a person up."""
    return accounts.register(request, caller)


@endpoints.post("/auth/login", audience=Audience.PUBLIC, audit="LOGIN")
def login(request: LoginRequest, client: Client, sessions: Sessions) -> LoginResponse:
    """Sign in."""
    return sessions.login(request, client)


@endpoints.post("/auth/refresh", audience=Audience.PUBLIC, audit="TOKEN_REFRESH")
def refresh(request: RefreshRequest, sessions: Sessions) -> RefreshResponse:
    """Trade a refresh token for a new pair; the old one is retired."""
    return sessions.refresh(request.refresh_token)


@endpoints.post("/auth/logout", audience=Audience.SIGNED_IN, audit="LOGOUT")
def logout(caller: Claims, sessions: Sessions) -> None:
    """Sign out: the token, its session and its refresh tokens are dead everywhere."""
    sessions.logout(caller)


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
