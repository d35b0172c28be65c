"""The SQL of refresh tokens."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from heartguard.models.base import Role
from heartguard.tokens import Claims

from .db_accounts import ACCOUNT, Account

_FIND = text(f"""
    SELECT {ACCOUNT},
        extract(epoch FROM clock_timestamp() - t.used_at) AS used_ago, n.jti AS next_jti,
        extract(epoch FROM n.issued_at) AS iat, extract(epoch FROM n.expires_at) AS exp,
        n.role AS next_role, n.kid, n.token_hash AS next_hash
    FROM heartguard_core.refresh_tokens t
    LEFT JOIN heartguard_core.refresh_tokens n ON n.jti = t.replaced_by AND n.kid IS NOT NULL
    JOIN heartguard_core.sessions s ON s.id = t.session_id
    JOIN heartguard_core.users u ON u.id = s.user_id
    WHERE t.jti = :jti AND t.session_id = :sid AND t.token_hash = :token_hash
        AND u.id = :user_id AND u.deleted_at IS NULL
""")  # noqa: S608


@dataclass(frozen=True, kw_only=True)
class Retired:
    """``seconds`` since the refresh token was used, and what followed it, where that can be signed again."""

    seconds: float
    account: Account
    successor: "Successor | None"


@dataclass(frozen=True, kw_only=True)
class Successor:
    """What a refresh token said besides whose it is, and with which key it was signed. Times are Unix seconds."""

    jti: str
    iat: int
    exp: int
    role: Role
    kid: str
    token_hash: bytes


@dataclass(frozen=True, kw_only=True)
class NewRefreshToken:
    """A refresh token to store: its claims, the key that signed it, what is kept of it.

    ``access_expires`` is when its access token does, in Unix seconds.
    """

    claims: Claims
    kid: str
    token_hash: bytes
    access_expires: int


def insert_refresh_token(tx: Connection, refresh: NewRefreshToken) -> None:
    tx.execute(
        text(
            "INSERT INTO heartguard_core.refresh_tokens (jti, session_id, token_hash, issued_at, expires_at, role, kid)"
            " VALUES (:jti, :sid, :token_hash, to_timestamp(:iat), to_timestamp(:exp), :role, :kid)"
        ),
        {"sid": refresh.claims.sid, **columns(refresh)},
    )


def columns(refresh: NewRefreshToken) -> dict[str, Any]:
    claims = refresh.claims
    return {
        "jti": claims.jti, "token_hash": refresh.token_hash, "iat": claims.iat, "exp": claims.exp,
        "role": claims.role, "kid": refresh.kid,
    }  # fmt: skip


def find_refresh_token(tx: Connection, claims: Claims, token_hash: bytes) -> Account | Retired | None:
    """Whose token it is, if it is good; else since when it is retired, and what for; None where it is unknown.

    The session must be locked before, by a statement of its own: a lock waited for in the same
    statement would still show the token as it was before the wait.
    """
    row = tx.execute(
        _FIND, {"jti": claims.jti, "sid": claims.sid, "token_hash": token_hash, "user_id": claims.user_id}
    ).one_or_none()
    if row is None:
        return None
    account = Account(*row[:8])
    if row.used_ago is None:
        return account
    successor = row.next_jti and Successor(
        jti=str(row.next_jti),
        iat=int(row.iat),
        exp=int(row.exp),
        role=row.next_role,
        kid=row.kid,
        token_hash=bytes(row.next_hash),
    )
    return Retired(seconds=float(row.used_ago), account=account, successor=successor)


def retire_refresh_token(tx: Connection, jti: str, replaced_by: str) -> None:
    tx.execute(
        text(
            "UPDATE heartguard_core.refresh_tokens SET used_at = clock_timestamp(), replaced_by = :replaced_by"
            " WHERE jti = :jti"
        ),
        {"jti": jti, "replaced_by": replaced_by},
    )
