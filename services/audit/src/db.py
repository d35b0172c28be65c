"""The SQL that writes the trail."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.errors import CheckViolation
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from heartguard.audit.chain import Checkpoint
from heartguard.errors import Unavailable

OUTBOX_LOCK = 0x4F7574  # "Out": any number that nobody else takes

Key = tuple[int, str]
"""An organization and the id of an event of its: another's may have the same. Ids from before that was so are of the
organization -1, and known to all."""

_INSERT_EVENTS = (
    "INSERT INTO heartguard_core.audit_events (org_id, sequence, event_id, actor, action, service, outcome,"
    " occurred_at, recorded_at, request_id, payload, hash)"
    " SELECT %s, e.* FROM unnest(%s::bigint[], %s::text[]::uuid[], %s::text[], %s::text[], %s::text[], %s::text[],"
    " %s::text[]::timestamptz[], %s::text[]::timestamptz[], %s::text[], %s::text[], %s::bytea[]) AS e"
)


class NoPartition(Unavailable):
    """The month has none: somebody took it away."""


@dataclass(frozen=True)
class Head:
    """Where a chain ends; ``signed`` is the sequence of its last checkpoint."""

    sequence: int
    hash: bytes
    recorded_at: datetime
    signed: int


@dataclass(frozen=True, slots=True)
class Row:
    """One event, in the order of the columns. Times and the id are text, the payload is JSON."""

    sequence: int
    event_id: str
    actor: str
    action: str
    service: str
    outcome: str
    occurred_at: str
    recorded_at: str
    request_id: str | None
    payload: str
    hash: bytes


@dataclass(frozen=True, slots=True)
class Raw:
    """What came as an event; ``org_id`` and ``service`` are whose it is, whatever it says, where the database knows."""

    event: bytes
    org_id: int | None = None
    service: str | None = None


@dataclass(frozen=True)
class Poison:
    """What came from ``source`` as an event and is none; 0 is the organization where none is known."""

    org_id: int
    source: str
    reason: str
    raw: bytes


def claim_ids(tx: Connection, keys: Sequence[Key]) -> set[Key]:
    """Those that were not there before; they are now. ``keys`` must be sorted, against deadlocks."""
    organizations, ids = map(list, zip(*keys, strict=True))
    rows = tx.exec_driver_sql(
        "INSERT INTO heartguard_core.audit_event_ids (org_id, event_id)"
        " SELECT k.org_id, k.id FROM unnest(%s::bigint[], %s::text[]::uuid[]) AS k(org_id, id)"
        " WHERE (SELECT true FROM heartguard_core.audit_event_ids o WHERE o.event_id = k.id AND o.org_id = -1)"
        " IS NULL ON CONFLICT DO NOTHING RETURNING org_id, event_id::text",
        (organizations, ids),
    )
    return {(row.org_id, row.event_id) for row in rows}


def lock_chain(tx: Connection, org_id: int, start: bytes) -> Head:
    """Let nobody else add to the organization's chain until the end of the transaction; begin one if need be.

    From here on row-level security lets this organization's rows through, and no others.
    """
    _enter(tx, str(org_id))
    head = _lock_chain(tx, org_id)
    if head is None:
        tx.execute(
            text(
                "INSERT INTO heartguard_core.audit_chains (org_id, sequence, hash, recorded_at)"
                " VALUES (:org_id, 0, :start, '-infinity') ON CONFLICT DO NOTHING"
            ),
            {"org_id": org_id, "start": start},
        )
        head = _lock_chain(tx, org_id)
        assert head is not None
    return head


def _lock_chain(tx: Connection, org_id: int) -> Head | None:
    row = tx.execute(
        text(
            "SELECT sequence, hash, greatest(recorded_at, clock_timestamp()) AS recorded_at, signed"
            " FROM heartguard_core.audit_chains WHERE org_id = :org_id FOR UPDATE"
        ),
        {"org_id": org_id},
    ).one_or_none()
    return Head(row.sequence, bytes(row.hash), row.recorded_at, row.signed) if row else None


def leave(tx: Connection) -> None:
    """From here on the transaction is nobody's, as at its beginning."""
    _enter(tx, "")


def _enter(tx: Connection, org_id: str) -> None:
    tx.execute(text("SELECT set_config('heartguard.org_id', :org_id, true)"), {"org_id": org_id})


def insert_events(tx: Connection, org_id: int, rows: Sequence[Row]) -> None:
    """Raises :class:`NoPartition`."""
    columns = [[getattr(row, name) for row in rows] for name in Row.__slots__]
    try:
        tx.exec_driver_sql(_INSERT_EVENTS, (org_id, *columns))
    except IntegrityError as error:
        if isinstance(error.orig, CheckViolation) and error.orig.diag.constraint_name is None:
            raise NoPartition from error
        raise


def move_head(tx: Connection, org_id: int, sequence: int, hash_: bytes, recorded_at: datetime) -> None:
    tx.execute(
        text(
            "UPDATE heartguard_core.audit_chains SET sequence = :sequence, hash = :hash, recorded_at = :recorded_at"
            " WHERE org_id = :org_id"
        ),
        {"org_id": org_id, "sequence": sequence, "hash": hash_, "recorded_at": recorded_at},
    )


def insert_checkpoint(tx: Connection, checkpoint: Checkpoint, signature: bytes) -> None:
    """The organization's chain must be locked."""
    tx.execute(
        text(
            "INSERT INTO heartguard_core.audit_checkpoints (org_id, sequence, hash, signed_at, key_id, signature)"
            " VALUES (:org_id, :sequence, CAST(:hash AS bytea), CAST(:signed_at AS timestamptz), :key_id, :signature)"
            " ON CONFLICT (org_id, sequence) DO NOTHING"
        ),
        {
            "org_id": checkpoint.org_id, "sequence": checkpoint.sequence, "hash": bytes.fromhex(checkpoint.hash),
            "signed_at": checkpoint.signed_at, "key_id": checkpoint.key_id, "signature": signature,
        },
    )  # fmt: skip
    tx.execute(
        text("UPDATE heartguard_core.audit_chains SET signed = :sequence WHERE org_id = :org_id"),
        {"org_id": checkpoint.org_id, "sequence": checkpoint.sequence},
    )


def unsigned_chains(tx: Connection, limit: int) -> list[int]:
    """Organizations whose chain has grown since its last checkpoint."""
    rows = tx.execute(
        text("SELECT org_id FROM heartguard_core.audit_chains WHERE signed < sequence ORDER BY org_id LIMIT :limit"),
        {"limit": limit},
    )
    return list(rows.scalars())


def ensure_partition(tx: Connection, at: datetime) -> None:
    tx.execute(text("SELECT heartguard_core.audit_ensure_partition(:at)"), {"at": at})


# Intents


def open_intents(tx: Connection, intents: Sequence[tuple[str, int, str, str]]) -> None:
    """Note intents (id, organization, event, the outcome's id), but not those whose outcome is there already."""
    ids, organizations, events, outcomes = map(list, zip(*intents, strict=True))
    tx.exec_driver_sql(
        "INSERT INTO heartguard_core.audit_intents (event_id, org_id, event)"
        " SELECT i.id::uuid, i.org_id, i.event"
        " FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::text[]) AS i(id, org_id, event, outcome)"
        " WHERE NOT EXISTS (SELECT FROM heartguard_core.audit_event_ids o WHERE o.event_id = i.outcome::uuid"
        " AND o.org_id IN (i.org_id, -1))"
        " ON CONFLICT DO NOTHING",
        (ids, organizations, events, outcomes),
    )


def close_intents(tx: Connection, keys: Sequence[Key]) -> None:
    organizations, ids = map(list, zip(*keys, strict=True))
    tx.exec_driver_sql(
        "DELETE FROM heartguard_core.audit_intents i USING unnest(%s::bigint[], %s::text[]::uuid[]) AS k(org_id, id)"
        " WHERE i.event_id = k.id AND i.org_id = k.org_id",
        (organizations, ids),
    )


def take_stale_intents(tx: Connection, seconds: float, limit: int) -> list[str]:
    """Intents that have been open for longer; they are open no more."""
    rows = tx.execute(
        text(
            "DELETE FROM heartguard_core.audit_intents WHERE (event_id, org_id) IN"
            " (SELECT event_id, org_id FROM heartguard_core.audit_intents"
            " WHERE recorded_at < clock_timestamp() - make_interval(secs => :seconds)"
            " ORDER BY recorded_at LIMIT :limit)"
            " RETURNING event"
        ),
        {"seconds": seconds, "limit": limit},
    )
    return list(rows.scalars())


def known_ids(tx: Connection, keys: Sequence[Key]) -> set[Key]:
    organizations, ids = map(list, zip(*keys, strict=True))
    rows = tx.exec_driver_sql(
        "SELECT k.org_id, k.id::text FROM unnest(%s::bigint[], %s::text[]::uuid[]) AS k(org_id, id)"
        " WHERE EXISTS (SELECT FROM heartguard_core.audit_event_ids o WHERE o.event_id = k.id"
        " AND o.org_id IN (k.org_id, -1))",
        (organizations, ids),
    )
    return {(row.org_id, row.id) for row in rows}


# The outbox, and what cannot be recorded


def take_from_outbox(tx: Connection, limit: int) -> list[Raw] | None:
    """Events from the outbox, oldest first; None where another process is at it."""
    if not tx.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": OUTBOX_LOCK}).scalar_one():
        return None
    rows = tx.execute(
        text(
            "WITH taken AS (DELETE FROM heartguard_core.audit_outbox WHERE id IN"
            " (SELECT id FROM heartguard_core.audit_outbox ORDER BY id LIMIT :limit)"
            " RETURNING id, event, org_id, service)"
            " SELECT event, org_id, service FROM taken ORDER BY id"
        ),
        {"limit": limit},
    )
    return [Raw(row.event.encode(), row.org_id, row.service) for row in rows]


def insert_poison(tx: Connection, poison: Sequence[Poison]) -> None:
    tx.execute(
        text(
            "INSERT INTO heartguard_core.audit_poison (org_id, source, reason, raw)"
            " VALUES (:org_id, :source, :reason, :raw)"
        ),
        [vars(one) for one in poison],
    )


def backlog(tx: Connection) -> Any:
    """How many are in the ``outbox`` (at most 100,000 are counted), seconds that the oldest ``waits``, open
    ``intents``, ``poison`` put aside."""
    return tx.execute(
        text(
            "SELECT (SELECT count(*) FROM (SELECT FROM heartguard_core.audit_outbox LIMIT 100000) o) AS outbox,"
            " (SELECT extract(epoch FROM clock_timestamp() - put_at) FROM heartguard_core.audit_outbox"
            " ORDER BY id LIMIT 1) AS waits,"
            " (SELECT count(*) FROM (SELECT FROM heartguard_core.audit_intents LIMIT 100000) i) AS intents,"
            " (SELECT count(*) FROM (SELECT FROM heartguard_core.audit_poison LIMIT 100000) p) AS poison"
        )
    ).one()
