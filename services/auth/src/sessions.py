"""Sessions: a session is a family of tokens that descend from one sign-in."""

import uuid
from datetime import UTC, datetime

from sqlalchemy import Connection

from heartguard import audit
from heartguard.database import Database
from heartguard.errors import NotFound, Unauthorized
from heartguard.models.auth_token import Introspection, RefreshResponse, Session
from heartguard.models.auth_token import Sessions as SessionList
from heartguard.revocations import Revocation, insert_revocation
from heartguard.tokens import Claims, Tokens

from . import db_sessions, db_tokens
from .attempts import Attempts
from .db_accounts import Account
from .db_tokens import Retired
from .pairs import Pair, Pairs, digest
from .revocations import Revocations
from .security import RefreshTokenReused


class Sessions:
    def __init__(
        self,
        database: Database,
        tokens: Tokens,
        pairs: Pairs,
        revocations: Revocations,
        attempts: Attempts,
        grace_seconds: int,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._pairs = pairs
        self._revocations = revocations
        self._attempts = attempts
        self._grace_seconds = grace_seconds

    def refresh(self, refresh_token: str) -> RefreshResponse:
        """Trade a refresh token for a new pair, with the role and organization that the user has now.

        A retired token gives the same pair again within ``grace_seconds`` of its first use: that is a retry, or
        two that raced. Later it is taken for theft, which ends the session (:class:`RefreshTokenReused`).
        """
        claims = self._tokens.verify(refresh_token, "refresh")
        with self._database.transaction(claims.org_id) as tx:
            if not db_sessions.lock_session(tx, claims.sid):
                raise Unauthorized
            found = db_tokens.find_refresh_token(tx, claims, digest(refresh_token))
            if found is None:
                raise Unauthorized
            self._attempts.take("refresh", claims.sub)  # only now: a dead token must not use up what its owner has
            if isinstance(found, Account):
                return self._answer(self._rotate(tx, claims, found))
            if found.seconds <= self._grace_seconds:
                return self._answer(self._repeat(tx, claims, found))
            ended = db_sessions.end_session(tx, claims.sid)
            org_id = found.account.org_id
            audit.record(tx, "TOKEN_REUSE", outcome="denied", actor=claims.sub, org_id=org_id, session=claims.sid)
        self._revocations.announce(ended)
        raise RefreshTokenReused

    def _rotate(self, tx: Connection, old: Claims, account: Account) -> Pair:
        pair = self._pairs.new(account, old.sid)
        db_tokens.insert_refresh_token(tx, pair.stored())
        db_tokens.retire_refresh_token(tx, old.jti, replaced_by=pair.refresh_claims.jti)
        db_sessions.touch_session(tx, old.sid, pair.access_claims.exp, pair.refresh_claims.exp)
        audit.record(tx, actor=old.sub, org_id=account.org_id, session=old.sid)
        return pair

    def _repeat(self, tx: Connection, old: Claims, retired: Retired) -> Pair:
        if retired.successor is None:
            raise Unauthorized
        pair = self._pairs.again(retired.account, old.sid, retired.successor)
        db_sessions.touch_session(tx, old.sid, pair.access_claims.exp, pair.refresh_claims.exp)
        audit.record(tx, actor=old.sub, org_id=retired.account.org_id, session=old.sid, again=True)
        return pair

    def _answer(self, pair: Pair) -> RefreshResponse:
        return RefreshResponse(
            access_token=pair.access, refresh_token=pair.refresh, expires_in=self._pairs.access_seconds
        )

    def logout(self, caller: Claims) -> None:
        """End the caller's session. Raises :class:`heartguard.revocations.NotDeadEverywhere`."""
        token = Revocation(kind="jti", id=caller.jti, expires_at=datetime.fromtimestamp(caller.exp, UTC))
        with self._database.transaction(caller.org_id) as tx:
            insert_revocation(tx, token)
            ended = db_sessions.end_session(tx, caller.sid)
            audit.record(tx, session=caller.sid)
        self._revocations.announce([token, *ended])

    def of(self, caller: Claims) -> SessionList:
        """The caller's living sessions."""
        with self._database.transaction(caller.org_id) as tx:
            if not db_sessions.is_live(tx, caller):
                raise Unauthorized
            rows = db_sessions.living_sessions(tx, caller.user_id, db_sessions.SESSIONS_PER_USER)
        return SessionList(
            sessions=[
                Session(
                    id=str(row.id),
                    created_at=row.created_at,
                    last_used_at=row.last_used_at,
                    ip=row.ip or "",
                    user_agent=row.user_agent,
                    current=str(row.id) == caller.sid,
                )
                for row in rows
            ]
        )

    def end(self, caller: Claims, sid: uuid.UUID) -> None:
        """End a session of the caller's, which may be this one; again is no error, so that it can be retried.

        Raises :class:`NotFound` for any other, :class:`heartguard.revocations.NotDeadEverywhere` as signing out does.
        """
        with self._database.transaction(caller.org_id) as tx:
            if not db_sessions.is_live(tx, caller):
                raise Unauthorized
            if not db_sessions.owns_session(tx, caller.user_id, str(sid)):
                raise NotFound
            ended = db_sessions.end_session(tx, str(sid))
            audit.record(tx, session=str(sid))
        self._revocations.announce(ended)

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
        with self._database.transaction(claims.org_id) as tx:
            if not db_sessions.is_live(tx, claims):
                return False
            return claims.typ == "access" or isinstance(
                db_tokens.find_refresh_token(tx, claims, digest(token)), Account
            )
