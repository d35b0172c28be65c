"""The SQL that deletes what has expired."""

from sqlalchemy import Connection, text

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
