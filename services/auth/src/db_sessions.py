"""The SQL of sessions."""

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from sqlalchemy import Connection, Row, text

from heartguard.context import Client
from heartguard.database import Database
from heartguard.revocations import Revocation, insert_revocation
from heartguard.tokens import Claims

from .db_accounts import Credentials
from .db_tokens import NewRefreshToken, columns

SESSIONS_PER_USER = 200
"""How many can live. Signing in ends the rest; those who do so at the same moment can leave a few more."""


_BEGIN_SESSION = text("""
WITH account AS (
    UPDATE heartguard_core.users SET last_login_at = now(), password_hash = :password_hash
    WHERE id = :user_id AND password_hash = :verified AND role = :role AND deleted_at IS NULL
    RETURNING id
), session AS (
    INSERT INTO heartguard_core.sessions (id, user_id, ip, user_agent, access_expires_at, refresh_expires_at)
    SELECT CAST(:sid AS uuid), id, CAST(:ip AS inet), :user_agent, to_timestamp(:access_expires), to_timestamp(:exp)
    FROM account
    RETURNING id
), surplus AS (
    UPDATE heartguard_core.sessions SET ended_at = now()
    WHERE id IN (
        SELECT s.id FROM heartguard_core.sessions s JOIN account ON s.user_id = account.id WHERE s.ended_at IS NULL
        ORDER BY s.last_used_at DESC, s.id OFFSET :others LIMIT 100
    )
    RETURNING id, access_expires_at
), revoked AS (
    INSERT INTO heartguard_core.revoked_tokens (kind, id, expires_at)
    SELECT 'sid', id, access_expires_at FROM surplus ON CONFLICT (kind, id) DO NOTHING
), recorded AS (
    INSERT INTO heartguard_core.audit_outbox (event) SELECT :event FROM session
)
INSERT INTO heartguard_core.refresh_tokens (jti, session_id, token_hash, issued_at, expires_at, role, kid)
SELECT CAST(:jti AS uuid), id, CAST(:token_hash AS bytea), to_timestamp(:iat), to_timestamp(:exp), :role, :kid
FROM session
RETURNING jti
""")


def begin_session(
    database: Database,
    verified: Credentials,
    password_hash: str,
    client: Client,
    refresh: NewRefreshToken,
    event: str,
) -> bool:
    """Note the sign-in, keep ``password_hash``, and store the session with its first refresh token and ``event``: a
    unit of work.

    What is more than :data:`SESSIONS_PER_USER` ends, the longest unused first; it counts as unpublished.
    False, and nothing is stored, where the account changed since it was verified.
    """
    claims = refresh.claims
    stored = database.at_once(
        _BEGIN_SESSION,
        {
            "user_id": verified.user_id, "verified": verified.password_hash, "password_hash": password_hash,
            "sid": claims.sid, "others": SESSIONS_PER_USER - 1, "access_expires": refresh.access_expires,
            "ip": _address(client.ip), "event": event,
            "user_agent": "".join(character for character in client.user_agent if character.isprintable()),
            **columns(refresh),
        },
        org_id=claims.org_id,
    )  # fmt: skip
    return bool(stored)


def _address(ip: str) -> str | None:
    """The address where it is one; who reaches the service past the gateway can say anything."""
    try:
        return str(ip_address(ip.partition("%")[0]))
    except ValueError:
        return None


def lock_session(tx: Connection, sid: str) -> bool:
    """Make refreshes of one session wait for each other; False where it has ended or never was."""
    return (
        tx.execute(
            text("SELECT FROM heartguard_core.sessions WHERE id = :sid AND ended_at IS NULL FOR UPDATE"), {"sid": sid}
        ).one_or_none()
        is not None
    )


def touch_session(tx: Connection, sid: str, access_expires: int, refresh_expires: int) -> None:
    """Note that it is used, and until when the tokens last given are good, in Unix seconds."""
    tx.execute(
        text(
            "UPDATE heartguard_core.sessions SET last_used_at = now(),"
            " access_expires_at = greatest(access_expires_at, to_timestamp(:access_expires)),"
            " refresh_expires_at = greatest(refresh_expires_at, to_timestamp(:refresh_expires)) WHERE id = :sid"
        ),
        {"sid": sid, "access_expires": access_expires, "refresh_expires": refresh_expires},
    )


def living_sessions(tx: Connection, user_id: int, limit: int) -> Sequence[Row[Any]]:
    """``id created_at last_used_at ip user_agent`` of the sessions that a token is still good in, newest first."""
    return tx.execute(
        text(
            "SELECT id, created_at, last_used_at, host(ip) AS ip, user_agent FROM heartguard_core.sessions s"
            " WHERE user_id = :user_id AND ended_at IS NULL AND (access_expires_at > now() OR EXISTS"
            " (SELECT FROM heartguard_core.refresh_tokens t"
            " WHERE t.session_id = s.id AND t.used_at IS NULL AND t.expires_at > now()))"
            " ORDER BY created_at DESC, id LIMIT :limit"
        ),
        {"user_id": user_id, "limit": limit},
    ).all()


def owns_session(tx: Connection, user_id: int, sid: str) -> bool:
    """Whether the session is the user's, living or ended."""
    return bool(
        tx.execute(
            text("SELECT EXISTS (SELECT FROM heartguard_core.sessions WHERE id = :sid AND user_id = :user_id)"),
            {"sid": sid, "user_id": user_id},
        ).scalar_one()
    )


def is_live(tx: Connection, claims: Claims) -> bool:
    """Whether an access token's user and session live and the token is not revoked."""
    return bool(
        tx.execute(
            text(
                "SELECT EXISTS (SELECT FROM heartguard_core.sessions s"
                " JOIN heartguard_core.users u ON u.id = s.user_id"
                " WHERE s.id = :sid AND u.id = :user_id AND s.ended_at IS NULL AND u.deleted_at IS NULL)"
                " AND NOT EXISTS (SELECT FROM heartguard_core.revoked_tokens WHERE kind = 'jti' AND id = :jti)"
            ),
            {"sid": claims.sid, "user_id": claims.user_id, "jti": claims.jti},
        ).scalar_one()
    )


def end_session(tx: Connection, sid: str) -> list[Revocation]:
    """End it, again if need be; empty where nothing of it can be alive any more."""
    row = tx.execute(
        text(
            "UPDATE heartguard_core.sessions SET ended_at = coalesce(ended_at, now()) WHERE id = :sid"
            " RETURNING access_expires_at"
        ),
        {"sid": sid},
    ).one_or_none()
    if row is None:
        return []
    ended = Revocation(kind="sid", id=sid, expires_at=row.access_expires_at)
    insert_revocation(tx, ended)
    return [ended]
