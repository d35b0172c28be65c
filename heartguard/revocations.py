"""What is dead before its time, and how every gateway comes to know.

PostgreSQL holds the truth; Valkey holds the list that gateways read. Four things make the list
trustworthy:

* A revocation is committed in PostgreSQL first, marked as unpublished, then written to Valkey.
* Whoever asked for it (``POST /auth/logout``, ``DELETE /users/{id}`` …) is answered that it is done only when that is
  so much as certain: Valkey has acknowledged the write, or its address refuses connections (or it is still loading),
  so that no gateway can read the list either and all of them ask ``/auth/token/introspect``, which reads PostgreSQL
  (and believe a yes for half a second). Any other failure (no answer in time, a name that does not resolve, a refused
  write) may be this service's alone while gateways go on reading a list without this revocation: that is a 503.
  The session has ended all the same, and auth's background thread publishes it as soon as it can.
* The marker (:data:`heartguard.valkey.REVOCATIONS_COMPLETE`) holds the ``run_id`` of the Valkey process that
  was told everything. A Valkey that restarted, empty, with an older copy of its data, or as a promoted replica,
  has another ``run_id``: the marker does not fit, gateways ask auth, and its background thread writes
  everything anew before it sets the marker again.
* The marker does not expire. While auth is down nothing is missing from the list but what somebody was told is not
  certain, and gateways must be able to go on without auth.

The list must not be evicted: Valkey runs with ``maxmemory-policy noeviction``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from redis import Redis
from redis.exceptions import BusyLoadingError, RedisError
from sqlalchemy import Connection, text

from .errors import Unavailable
from .logs import log
from .valkey import REVOKED_SESSION, REVOKED_TOKEN

CLOCK_SKEW = 60
"""Seconds that an entry outlives its tokens, for gateways whose clock is behind."""

_PREFIXES = {"jti": REVOKED_TOKEN, "sid": REVOKED_SESSION}


@dataclass(frozen=True, kw_only=True)
class Revocation:
    """One token (``jti``) or all tokens of a session (``sid``) are dead; of interest until ``expires_at``."""

    kind: Literal["jti", "sid"]
    id: str
    expires_at: datetime


class NotDeadEverywhere(Unavailable):
    """A session has ended, but a gateway that can still read Valkey may not know yet."""

    def __init__(self) -> None:
        super().__init__("Done here, but not yet known to every gateway; that follows by itself")


class RevocationList:
    """The list that the gateways read."""

    def __init__(self, valkey: Redis) -> None:
        self._valkey = valkey

    def announce(self, revoked: Sequence[Revocation]) -> None:
        """Tell the gateways of what was just committed. Raises :class:`NotDeadEverywhere`; see above."""
        try:
            self.write(revoked)
        except RedisError as error:
            log.warning("revocation not published", error=repr(error))
            if not _nobody_can_read(error):
                raise NotDeadEverywhere from error

    def write(self, revoked: Sequence[Revocation]) -> None:
        """Raises :class:`redis.exceptions.RedisError` where Valkey has not acknowledged all of it."""
        with self._valkey.pipeline(transaction=False) as pipeline:
            for item in revoked:
                until = int(item.expires_at.timestamp()) + CLOCK_SKEW
                pipeline.set(_PREFIXES[item.kind] + item.id, b"1", exat=until)
            pipeline.execute()


def _nobody_can_read(error: RedisError) -> bool:
    """Whether the failure shows that Valkey serves no one at present, rather than just not us."""
    refused = (ConnectionRefusedError, FileNotFoundError)  # TCP or socket file; no such socket file
    return isinstance(error, BusyLoadingError) or isinstance(error.__context__, refused)


# In PostgreSQL. Each is to be announced once it is committed.


def insert_revocation(tx: Connection, revocation: Revocation) -> None:
    tx.execute(
        text(
            "INSERT INTO heartguard_core.revoked_tokens (kind, id, expires_at) VALUES (:kind, :id, :expires_at)"
            " ON CONFLICT (kind, id) DO NOTHING"
        ),
        vars(revocation),
    )


_END_SESSIONS = text("""
WITH ended AS (
    UPDATE heartguard_core.sessions SET ended_at = now()
    WHERE user_id = :user_id AND ended_at IS NULL AND id IS DISTINCT FROM CAST(:kept AS uuid)
    RETURNING id, access_expires_at
), revoked AS (
    INSERT INTO heartguard_core.revoked_tokens (kind, id, expires_at)
    SELECT 'sid', id, access_expires_at FROM ended
    ON CONFLICT (kind, id) DO NOTHING
)
SELECT id, access_expires_at FROM ended
""")


def end_sessions(tx: Connection, user_id: int, kept: str | None = None) -> list[Revocation]:
    """End all sessions of a user but the one ``kept``.

    What happened to the user must be written before: a sign-in under way then either comes first, and its session
    ends too, or finds the account changed.
    """
    return _of_sessions(tx.execute(_END_SESSIONS, {"user_id": user_id, "kept": kept}))


def ended_sessions(tx: Connection, user_id: int) -> list[Revocation]:
    """A user's sessions that have ended while a token of theirs could still be good: to be announced again."""
    rows = tx.execute(
        text(
            "SELECT id, access_expires_at FROM heartguard_core.sessions"
            " WHERE user_id = :user_id AND ended_at IS NOT NULL AND access_expires_at > now()"
        ),
        {"user_id": user_id},
    )
    return _of_sessions(rows)


def _of_sessions(rows: Iterable[Sequence[Any]]) -> list[Revocation]:
    return [Revocation(kind="sid", id=str(id_), expires_at=expires_at) for id_, expires_at in rows]
