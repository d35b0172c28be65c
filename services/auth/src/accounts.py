"""Accounts: who may register whom, and what an account says of itself."""

from typing import Any

from sqlalchemy import Connection

from heartguard import audit
from heartguard.database import Database
from heartguard.errors import Forbidden, Unauthorized
from heartguard.logs import log
from heartguard.models.auth_token import Profile, RegisterRequest, RegisterResponse
from heartguard.models.base import UNSET, Role, UnsetType
from heartguard.tokens import Claims

from . import db_accounts, passwords
from .attempts import Attempts
from .db_accounts import NewAccount
from .security import (
    EmailTaken,
    NotSetUp,
    OrganizationNotChosen,
    OrganizationSignupClosed,
    RegistrationClosed,
    RoleNotAllowed,
    UnacceptablePassword,
)
from .settings import Settings


class Accounts:
    def __init__(self, database: Database, attempts: Attempts, settings: Settings) -> None:
        self._database = database
        self._attempts = attempts
        self._settings = settings

    def register(self, request: RegisterRequest, caller: Claims | None) -> RegisterResponse:
        """Sign a person up, on the person's own or by an admin of the organization.

        Raises :class:`Forbidden` and its kinds, :class:`UnacceptablePassword`, :class:`EmailTaken`.
        """
        email = request.email.lower()
        self._attempts.take("register", email)
        role = self._allowed_role(request, caller)
        if problem := passwords.problem(request.password):
            raise UnacceptablePassword(problem)
        password_hash = passwords.hashed(request.password)
        org_id = self._organization(request, caller)
        with self._database.transaction(org_id) as tx:
            self._enter(tx, org_id, request, caller)
            account = NewAccount(
                org_id=org_id,
                email=email,
                password_hash=password_hash,
                role=role,
                first_name=_given(request.first_name),
                last_name=_given(request.last_name),
            )
            user_id = db_accounts.insert_user(tx, account)
            if user_id is None:
                raise EmailTaken
            actor = caller.sub if caller else str(user_id)
            audit.record(tx, actor=actor, org_id=account.org_id, user_id=user_id, role=role)
        return RegisterResponse(user_id=user_id, email=email, role=role, org_id=account.org_id)

    def _allowed_role(self, request: RegisterRequest, caller: Claims | None) -> Role:
        """The role that the new account gets; raises where the caller may not do this at all."""
        signs_organization_up = request.organization_name is not UNSET
        if caller is not None:
            if caller.role != "admin":
                raise Forbidden
            if signs_organization_up:
                raise OrganizationNotChosen
            return request.role
        if signs_organization_up:
            if not self._settings.org_signup:
                raise OrganizationSignupClosed
            if request.role == "manager":
                raise RoleNotAllowed
            return "admin"
        if request.role != "user":
            raise RoleNotAllowed
        if self._settings.registration == "closed":
            raise RegistrationClosed
        return "user"

    def _organization(self, request: RegisterRequest, caller: Claims | None) -> int:
        """The organization that the new account belongs to, which may be still to be made."""
        if caller is not None:
            return caller.org_id
        if request.organization_name is UNSET:
            return db_accounts.DEFAULT_ORG_ID
        return db_accounts.next_organization_id(self._database)

    @staticmethod
    def _enter(tx: Connection, org_id: int, request: RegisterRequest, caller: Claims | None) -> None:
        """Make sure of the organization, and that the caller may put somebody into it."""
        if caller is not None:
            _check_living_admin(tx, caller)
        elif not isinstance(request.organization_name, UnsetType):
            db_accounts.insert_organization(tx, org_id, request.organization_name)
        elif not db_accounts.organization_exists(tx, org_id):
            raise NotSetUp

    def profile(self, caller: Claims) -> Profile:
        """The caller's account; :class:`Unauthorized` where it or the session is gone."""
        with self._database.transaction(caller.org_id) as tx:
            account = db_accounts.find_caller(tx, caller)
        if account is None:
            raise Unauthorized
        return Profile(
            id=account.id,
            email=account.email,
            role=account.role,
            org_id=account.org_id,
            created_at=account.created_at,
            **_present(first_name=account.first_name, last_name=account.last_name, last_login_at=account.last_login_at),
        )

    def bootstrap(self) -> None:
        """Make the default organization and, where it has no admin, its first. A password is never replaced."""
        email = self._settings.bootstrap_admin_email
        with self._database.transaction(db_accounts.DEFAULT_ORG_ID) as tx:
            db_accounts.lock_bootstrap(tx)
            db_accounts.ensure_default_organization(tx, self._settings.default_org_name)
            if db_accounts.has_admin(tx, db_accounts.DEFAULT_ORG_ID):
                return
            admin = NewAccount(
                org_id=db_accounts.DEFAULT_ORG_ID,
                email=email,
                password_hash=passwords.hashed(self._settings.bootstrap_admin_password),
                role="admin",
            )
            made = db_accounts.insert_user(tx, admin)
            if made is not None:
                audit.record(tx, "REGISTER", service="auth", org_id=admin.org_id, user_id=made, role=admin.role)
        if made is None:
            log.error("no admin: BOOTSTRAP_ADMIN_EMAIL is the address of an account that is none")
        else:
            log.info("first admin made", user_id=made)


def _check_living_admin(tx: Connection, caller: Claims) -> None:
    """The caller's account as it is now may differ from what the token says."""
    account = db_accounts.find_caller(tx, caller)
    if account is None:
        raise Unauthorized
    if account.role != "admin":
        raise Forbidden


def _given(value: str | UnsetType) -> str | None:
    return None if isinstance(value, UnsetType) else value


def _present(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
