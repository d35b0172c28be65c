"""Sessions: a session is a family of tokens that descend from one sign-in."""

import hashlib
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection

from heartguard import audit
from heartguard.context import Client
from heartguard.database import Database
from heartguard.errors import Unauthorized
from heartguard.models.auth_token import Introspection, LoginRequest, LoginResponse, RefreshResponse
from heartguard.tokens import Claims, Tokens, TokenType

from . import db, passwords
from .attempts import Attempts
from .revocations import Revocations
from .security import InvalidCredentials, RefreshTokenReused
from .settings import Settings


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An access token and the refresh token that follows it."""

    access: str
    access_claims: Claims
    refresh: str
    refresh_claims: Claims


class Sessions:
    def __init__(
        self, database: Database, tokens: Tokens, revocations: Revocations, attempts: Attempts, settings: Settings
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._revocations = revocations
        self._attempts = attempts
        self._access_seconds = settings.jwt_expires_minutes * 60
        self._refresh_seconds = settings.refresh_token_ttl
        self._grace_seconds = settings.refresh_grace_seconds

    def login(self, request: LoginRequest, client: Client) -> LoginResponse:
        """Begin a session. Raises :class:`InvalidCredentials`; takes as long whether the address is known or not."""
        email = request.email.lower()
        self._attempts.take("login", email)
        with self._database.transaction() as tx:
            known = db.find_credentials(tx, email)
        if not passwords.matches(known.password_hash if known else None, request.password) or known is None:
            audit.emit("LOGIN_FAILED", str(known.user_id) if known else "unknown", "failure")
            raise InvalidCredentials
        stored = known.password_hash
        kept = passwords.hashed(request.password) if passwords.outdated(stored) else stored
        with self._database.transaction() as tx:
            account = db.record_sign_in(tx, known, kept)
            if account is None:
                raise InvalidCredentials
            pair = self._issue(account, str(uuid.uuid4()))
            db.insert_session(tx, pair.access_claims.sid, account.id, client, pair.access_claims.exp)
            db.insert_refresh_token(tx, pair.refresh_claims, digest(pair.refresh))
        return LoginResponse(access_token=pair.access, refresh_token=pair.refresh, expires_in=self._access_seconds)

    def refresh(self, refresh_token: str) -> RefreshResponse:
        """Trade a refresh token for a new pair, with the role and organization that the user has now.

        A retired token is :class:`Unauthorized`: within REFRESH_GRACE_SECONDS of its use it is taken for
        a retry, later for theft, which ends the session (:class:`RefreshTokenReused`).
        """
        claims = self._tokens.verify(refresh_token, "refresh")
        self._attempts.take("refresh", claims.sub)
        with self._database.transaction() as tx:
            if not db.lock_session(tx, claims.sid):
                raise Unauthorized
            found = db.find_refresh_token(tx, claims, digest(refresh_token))
            if isinstance(found, db.Account):
                return self._rotate(tx, claims, found)
            if found is None or found.seconds <= self._grace_seconds:
                raise Unauthorized
            ended = db.end_session(tx, claims.sid)
        self._report_theft(claims, ended)
        raise RefreshTokenReused

    def _rotate(self, tx: Connection, old: Claims, account: db.Account) -> RefreshResponse:
        pair = self._issue(account, old.sid)
        db.insert_refresh_token(tx, pair.refresh_claims, digest(pair.refresh))
        db.retire_refresh_token(tx, old.jti, replaced_by=pair.refresh_claims.jti)
        db.touch_session(tx, old.sid, pair.access_claims.exp)
        return RefreshResponse(access_token=pair.access, refresh_token=pair.refresh, expires_in=self._access_seconds)

    def _report_theft(self, claims: Claims, ended: list[db.Revocation]) -> None:
        audit.emit("TOKEN_REUSE", claims.sub, "denied", session=claims.sid)
        self._revocations.announce(ended)

    def logout(self, caller: Claims) -> None:
        """End the caller's session. Raises :class:`.security.NotDeadEverywhere` where a gateway may not know it yet."""
        token = db.Revocation(kind="jti", id=caller.jti, expires_at=datetime.fromtimestamp(caller.exp, UTC))
        with self._database.transaction() as tx:
            db.insert_revocation(tx, token)
            ended = db.end_session(tx, caller.sid)
        self._revocations.announce([token, *ended])

    def introspect(self, token: str, caller: Claims) -> Introspection:
        """What a token is worth now. An admin learns nothing of another organization's tokens."""
        try:
            claims = self._tokens.read(token)
        except Unauthorized:
            return Introspection(active=False)
        visible = caller.role == "service" or claims.org_id == caller.org_id
        if not visible or not self._is_live(claims, token):
            return Introspection(active=False)
        return Introspection(
            active=True,
            sub=claims.sub,
            role=claims.role,
            org_id=claims.org_id,
            sid=claims.sid,
            jti=claims.jti,
            exp=claims.exp,
            iat=claims.iat,
            typ=claims.typ,
        )

    def _is_live(self, claims: Claims, token: str) -> bool:
        if claims.role == "service":  # lives seconds, belongs to no session, cannot be revoked
            return claims.typ == "access"
        with self._database.transaction() as tx:
            if not db.is_live(tx, claims):
                return False
            return claims.typ == "access" or isinstance(db.find_refresh_token(tx, claims, digest(token)), db.Account)

    def _issue(self, account: db.Account, sid: str) -> Pair:
        def issue(typ: TokenType, seconds: int) -> tuple[str, Claims]:
            return self._tokens.issue(
                sub=str(account.id), role=account.role, org_id=account.org_id, sid=sid, typ=typ, seconds=seconds
            )

        access, access_claims = issue("access", self._access_seconds)
        refresh, refresh_claims = issue("refresh", self._refresh_seconds)
        return Pair(access=access, access_claims=access_claims, refresh=refresh, refresh_claims=refresh_claims)


def digest(token: str) -> bytes:
    """What is kept of a refresh token."""
    return hashlib.sha256(token.encode()).digest()
