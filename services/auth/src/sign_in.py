"""Passwords put to use: signing in with one, and changing it."""

import uuid
from dataclasses import dataclass

from heartguard import audit
from heartguard.context import Client
from heartguard.database import Database
from heartguard.errors import Unauthorized
from heartguard.models.auth_token import LoginRequest, LoginResponse, PasswordChange
from heartguard.revocations import Revocation, end_sessions
from heartguard.tokens import Claims

from . import db_accounts, db_sessions, passwords
from .attempts import Attempts
from .db_accounts import Account, Credentials
from .devices import Devices
from .lockout import Lockout
from .pairs import Pair, Pairs
from .revocations import Revocations
from .security import InvalidCredentials, TooManyFailures, UnacceptablePassword, WrongCurrentPassword


@dataclass(frozen=True)
class SignedIn:
    """The answer, and the header that lets the device be known next time."""

    answer: LoginResponse
    set_cookie: str


class SignIn:
    def __init__(
        self,
        database: Database,
        pairs: Pairs,
        revocations: Revocations,
        attempts: Attempts,
        lockout: Lockout,
        devices: Devices,
    ) -> None:
        self._database = database
        self._pairs = pairs
        self._revocations = revocations
        self._attempts = attempts
        self._lockout = lockout
        self._devices = devices

    def login(self, request: LoginRequest, client: Client) -> SignedIn:
        """Begin a session. Takes as long whether the address is known or not.

        Raises :class:`InvalidCredentials`, or :class:`.security.TooManyFailures` where the account is locked: for
        all new devices together, and for each known one by itself.
        """
        email = request.email.lower()
        device = self._devices.recognize(client, email)
        try:
            with self._lockout.attempt(email, device):
                self._attempts.take("login", email, device)
                pair = self._begin(*self._verified(email, request.password), request.password, client)
        except TooManyFailures:
            known = db_accounts.find_credentials(self._database, email)
            _report_failure(known[0] if known else None, email, "denied")
            raise
        answer = LoginResponse(
            access_token=pair.access, refresh_token=pair.refresh, expires_in=self._pairs.access_seconds
        )
        return SignedIn(answer, self._devices.cookie(client, email, device))

    def _verified(self, email: str, password: str) -> tuple[Account, Credentials]:
        known = db_accounts.find_credentials(self._database, email)
        if not passwords.matches(known[1].password_hash if known else None, password) or known is None:
            _report_failure(known[0] if known else None, email, "failure")
            raise InvalidCredentials
        return known

    def _begin(self, account: Account, verified: Credentials, password: str, client: Client) -> Pair:
        stored = verified.password_hash
        kept = passwords.hashed(password) if passwords.outdated(stored) else stored
        pair = self._pairs.new(account, str(uuid.uuid4()))
        event = audit.outbox_row(actor=str(account.id), org_id=account.org_id, session=pair.access_claims.sid)
        if not db_sessions.begin_session(self._database, verified, kept, client, pair.stored(), event):
            raise InvalidCredentials
        return pair

    def change_password(self, request: PasswordChange, caller: Claims) -> None:
        """Replace the caller's password; every other session of the user ends, access tokens too.

        Raises :class:`WrongCurrentPassword` (which counts as a failed attempt and so can lock),
        :class:`UnacceptablePassword`, :class:`heartguard.revocations.NotDeadEverywhere` as signing out does.
        """
        if problem := passwords.problem(request.new_password):
            raise UnacceptablePassword(problem, "/new_password")
        with self._database.transaction(caller.org_id) as tx:
            known = db_accounts.find_own_credentials(tx, caller)
        if known is None:
            raise Unauthorized
        try:
            with self._lockout.attempt("password", caller.sub):
                ended = self._replace(known, request, caller)
        except TooManyFailures:
            audit.emit(outcome="denied")
            raise
        self._revocations.announce(ended)

    def _replace(self, known: Credentials, request: PasswordChange, caller: Claims) -> list[Revocation]:
        """The sessions that this ended."""
        if not passwords.matches(known.password_hash, request.current_password):
            audit.emit(outcome="failure")
            raise WrongCurrentPassword
        new_hash = passwords.hashed(request.new_password)
        with self._database.transaction(caller.org_id) as tx:
            if not db_accounts.change_password(tx, known, new_hash):
                raise WrongCurrentPassword
            ended = end_sessions(tx, caller.user_id, kept=caller.sid)
            audit.record(tx, sessions_ended=len(ended))
        return ended


def _report_failure(account: Account | None, email: str, outcome: audit.Outcome) -> None:
    """A wrong password is the organization's to know; what address nobody has, only the platform's."""
    if account is None:
        audit.emit("LOGIN_FAILED", outcome=outcome, email=email)
    else:
        audit.emit("LOGIN_FAILED", outcome=outcome, actor=str(account.id), org_id=account.org_id, email=email)
