"""All SQL of the auth service."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Any

from sqlalchemy import Connection, Row, text

from heartguard.context import Client
from heartguard.database import Database
from heartguard.models.base import Role
from heartguard.revocations import Revocation, insert_revocation
from heartguard.tokens import Claims

DEFAULT_ORG_ID = 1
BOOTSTRAP_LOCK = 0x41757468  # "Auth": any number that nobody else takes

SESSIONS_PER_USER = 200
"""How many can live. Signing in ends the rest; those who do so at the same moment can leave a few more."""


@dataclass(frozen=True)
class Account:
    """A user, without the password; in the order in which the columns are always selected."""

    id: int
    org_id: int
    email: str
    role: Role
    first_name: str | None
    last_name: str | None
    created_at: datetime
    last_login_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class NewAccount:
    """``email`` is in lower case."""

    org_id: int
    email: str
    password_hash: str
    role: Role
    first_name: str | None = None
    last_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Credentials:
    user_id: int
    password_hash: str


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


# Organizations and users


def lock_bootstrap(tx: Connection) -> None:
    """Wait until no other process sets the database up; freed at the end of the transaction."""
    tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": BOOTSTRAP_LOCK})


def ensure_default_organization(tx: Connection, name: str) -> None:
    tx.execute(
        text("INSERT INTO heartguard_core.organizations (id, name) VALUES (:id, :name) ON CONFLICT (id) DO NOTHING"),
        {"id": DEFAULT_ORG_ID, "name": name},
    )


def next_organization_id(database: Database) -> int:
    """The id of an organization that is about to be made: only one that says which it is shows its rows."""
    ((org_id,),) = database.at_once(text("SELECT nextval('heartguard_core.organizations_id_seq')"), {})
    return int(org_id)


def insert_organization(tx: Connection, org_id: int, name: str) -> None:
    tx.execute(
        text("INSERT INTO heartguard_core.organizations (id, name) VALUES (:id, :name)"), {"id": org_id, "name": name}
    )


def organization_exists(tx: Connection, org_id: int) -> bool:
    return bool(
        tx.execute(
            text("SELECT EXISTS (SELECT FROM heartguard_core.organizations WHERE id = :id)"), {"id": org_id}
        ).scalar_one()
    )


def has_admin(tx: Connection, org_id: int) -> bool:
    return bool(
        tx.execute(
            text(
                "SELECT EXISTS (SELECT FROM heartguard_core.users"
                " WHERE org_id = :org_id AND role = 'admin' AND deleted_at IS NULL)"
            ),
            {"org_id": org_id},
        ).scalar_one()
    )


def insert_user(tx: Connection, account: NewAccount) -> int | None:
    """The new user's id; None where the address is taken."""
    found: int | None = tx.execute(
        text(
            "INSERT INTO heartguard_core.users (org_id, email, password_hash, role, first_name, last_name)"
            " VALUES (:org_id, :email, :password_hash, :role, :first_name, :last_name)"
            " ON CONFLICT (email) WHERE deleted_at IS NULL DO NOTHING RETURNING id"
        ),
        vars(account),
    ).scalar_one_or_none()
    return found


def find_caller(tx: Connection, claims: Claims) -> Account | None:
    """The user a token speaks for, as long as user and session live."""
    row = tx.execute(
        text(
            "SELECT u.id, u.org_id, u.email, u.role, u.first_name, u.last_name, u.created_at, u.last_login_at"
            " FROM heartguard_core.users u JOIN heartguard_core.sessions s ON s.user_id = u.id"
            " WHERE u.id = :user_id AND s.id = :sid AND u.deleted_at IS NULL AND s.ended_at IS NULL"
        ),
        {"user_id": claims.user_id, "sid": claims.sid},
    ).one_or_none()
    return Account(*row) if row else None


_FIND_CREDENTIALS = text(
    "SELECT id, org_id, email, role, first_name, last_name, created_at, last_login_at, password_hash"
    " FROM heartguard_core.users WHERE email = :email AND deleted_at IS NULL"
)


def find_credentials(database: Database, email: str) -> tuple[Account, Credentials] | None:
    """A unit of work by itself: nobody knows the organization yet."""
    for *columns, password_hash in database.at_once(_FIND_CREDENTIALS, {"email": email}, email=email):
        account = Account(*columns)
        return account, Credentials(user_id=account.id, password_hash=password_hash)
    return None


def find_own_credentials(tx: Connection, claims: Claims) -> Credentials | None:
    """Of the user a token speaks for, as long as user and session live."""
    row = tx.execute(
        text(
            "SELECT u.id, u.password_hash"
            " FROM heartguard_core.users u JOIN heartguard_core.sessions s ON s.user_id = u.id"
            " WHERE u.id = :user_id AND s.id = :sid AND u.deleted_at IS NULL AND s.ended_at IS NULL"
        ),
        {"user_id": claims.user_id, "sid": claims.sid},
    ).one_or_none()
    return Credentials(user_id=row.id, password_hash=row.password_hash) if row else None


def change_password(tx: Connection, verified: Credentials, password_hash: str) -> bool:
    """Replace the hash; False where the account changed since ``verified`` was."""
    return (
        tx.execute(
            text(
                "UPDATE heartguard_core.users SET password_hash = :password_hash, updated_at = now()"
                " WHERE id = :user_id AND password_hash = :verified AND deleted_at IS NULL"
            ),
            {"user_id": verified.user_id, "verified": verified.password_hash, "password_hash": password_hash},
        ).rowcount
        == 1
    )


# Sessions and tokens


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
            **_columns(refresh),
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


def insert_refresh_token(tx: Connection, refresh: NewRefreshToken) -> None:
    tx.execute(
        text(
            "INSERT INTO heartguard_core.refresh_tokens (jti, session_id, token_hash, issued_at, expires_at, role, kid)"
            " VALUES (:jti, :sid, :token_hash, to_timestamp(:iat), to_timestamp(:exp), :role, :kid)"
        ),
        {"sid": refresh.claims.sid, **_columns(refresh)},
    )


def _columns(refresh: NewRefreshToken) -> dict[str, Any]:
    claims = refresh.claims
    return {
        "jti": claims.jti, "token_hash": refresh.token_hash, "iat": claims.iat, "exp": claims.exp,
        "role": claims.role, "kid": refresh.kid,
    }  # fmt: skip


def lock_session(tx: Connection, sid: str) -> bool:
    """Make refreshes of one session wait for each other; False where it has ended or never was."""
    return (
        tx.execute(
            text("SELECT FROM heartguard_core.sessions WHERE id = :sid AND ended_at IS NULL FOR UPDATE"), {"sid": sid}
        ).one_or_none()
        is not None
    )


def find_refresh_token(tx: Connection, claims: Claims, token_hash: bytes) -> Account | Retired | None:
    """Whose token it is, if it is good; else since when it is retired, and what for; None where it is unknown.

    The session must be locked before, by a statement of its own: a lock waited for in the same
    statement would still show the token as it was before the wait.
    """
    row = tx.execute(
        text(
            "SELECT u.id, u.org_id, u.email, u.role, u.first_name, u.last_name, u.created_at, u.last_login_at,"
            " extract(epoch FROM clock_timestamp() - t.used_at) AS used_ago, n.jti AS next_jti,"
            " extract(epoch FROM n.issued_at) AS iat, extract(epoch FROM n.expires_at) AS exp,"
            " n.role AS next_role, n.kid, n.token_hash AS next_hash"
            " FROM heartguard_core.refresh_tokens t"
            " LEFT JOIN heartguard_core.refresh_tokens n ON n.jti = t.replaced_by AND n.kid IS NOT NULL"
            " JOIN heartguard_core.sessions s ON s.id = t.session_id"
            " JOIN heartguard_core.users u ON u.id = s.user_id"
            " WHERE t.jti = :jti AND t.session_id = :sid AND t.token_hash = :token_hash"
            " AND u.id = :user_id AND u.deleted_at IS NULL"
        ),
        {"jti": claims.jti, "sid": claims.sid, "token_hash": token_hash, "user_id": claims.user_id},
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


# Revocations


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


def unpublished(tx: Connection, limit: int) -> list[Revocation]:
    """Revocations that still matter and are not known to have reached the gateways' list."""
    rows = tx.execute(
        text(
            "SELECT kind, id, expires_at FROM heartguard_core.revoked_tokens"
            " WHERE NOT published AND expires_at > now() ORDER BY kind, id LIMIT :limit"
        ),
        {"limit": limit},
    )
    return [Revocation(kind=kind, id=str(id_), expires_at=expires_at) for kind, id_, expires_at in rows]


def unexpired(tx: Connection, after: Revocation | None, limit: int) -> list[Revocation]:
    """Revocations that still matter, published or not, in pages."""
    rows = tx.execute(
        text(
            "SELECT kind, id, expires_at FROM heartguard_core.revoked_tokens"
            " WHERE expires_at > now() AND (kind, id) > (:kind, CAST(:id AS uuid)) ORDER BY kind, id LIMIT :limit"
        ),
        {
            "kind": after.kind if after else "",
            "id": after.id if after else "00000000-0000-0000-0000-000000000000",
            "limit": limit,
        },
    )
    return [Revocation(kind=kind, id=str(id_), expires_at=expires_at) for kind, id_, expires_at in rows]


def mark_published(tx: Connection, revocations: Sequence[Revocation]) -> None:
    tx.execute(
        text(
            "UPDATE heartguard_core.revoked_tokens SET published = true"
            " FROM unnest(CAST(:kinds AS text[]), CAST(:ids AS uuid[])) AS done (kind, id)"
            " WHERE revoked_tokens.kind = done.kind AND revoked_tokens.id = done.id AND NOT published"
        ),
        {"kinds": [r.kind for r in revocations], "ids": [r.id for r in revocations]},
    )


SWEEPS = (
    text(
        "DELETE FROM heartguard_core.refresh_tokens WHERE jti IN (SELECT jti FROM heartguard_core.refresh_tokens"
        " WHERE expires_at < now() LIMIT :limit FOR UPDATE SKIP LOCKED)"
    ),
    text(
        "DELETE FROM heartguard_core.revoked_tokens WHERE (kind, id) IN (SELECT kind, id"
        " FROM heartguard_core.revoked_tokens WHERE expires_at < now() - interval '1 minute'"
        " LIMIT :limit FOR UPDATE SKIP LOCKED)"
    ),
    # Only once no token of it can be good: a session's end says that its tokens are dead.
    text(
        "DELETE FROM heartguard_core.sessions WHERE id IN (SELECT id FROM heartguard_core.sessions"
        " WHERE access_expires_at < now() - interval '1 minute' AND refresh_expires_at < now()"
        " LIMIT :limit FOR UPDATE SKIP LOCKED)"
    ),
)
"""Each deletes up to ``limit`` rows that nothing can ask for any more, of every organization."""


def sweep(tx: Connection, limit: int) -> bool:
    """Delete expired rows, up to ``limit`` of each kind; True where there may be more."""
    deleted = [tx.execute(statement, {"limit": limit}).rowcount for statement in SWEEPS]
    return max(deleted) >= limit
