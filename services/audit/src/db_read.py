"""The SQL that reads the trail. All of it is within one organization."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, text

_LINKS = text("""
    SELECT action, actor, event_id::text, to_char(occurred_at AT TIME ZONE 'UTC', :form) AS occurred_at, org_id,
        outcome, payload, to_char(recorded_at AT TIME ZONE 'UTC', :form) AS recorded_at, request_id, sequence,
        service, hash
    FROM heartguard_core.audit_events WHERE org_id = :org_id AND sequence > :after AND sequence <= :upto
    ORDER BY sequence LIMIT :limit
""")
_CHECKPOINTS = text("""
    SELECT sequence, hash, to_char(signed_at AT TIME ZONE 'UTC', :form) AS signed_at, key_id, signature
    FROM heartguard_core.audit_checkpoints WHERE org_id = :org_id AND sequence > :after AND sequence <= :upto
    ORDER BY sequence
""")
_FORM = 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
"""Times as the canonical form has them."""

_CONDITIONS = {
    "actor": "actor = :actor",
    "action": "action = :action",
    "service": "service = :service",
    "outcome": "outcome = :outcome",
    "from": "occurred_at >= CAST(:from AS timestamptz)",
    "to": "occurred_at < CAST(:to AS timestamptz)",
    "before": "(occurred_at, sequence) < (to_timestamp(0) + :before_time * interval '1 microsecond', :before_sequence)",
}


@dataclass(frozen=True)
class Filters:
    """``equal`` holds what columns must be; ``before`` is the position (time in µs, sequence) to go on from."""

    equal: dict[str, str] = field(default_factory=dict)
    since: str | None = None
    until: str | None = None
    before: tuple[int, int] | None = None


@dataclass(frozen=True)
class Extent:
    """What a chain should be: after ``after`` (whose hash is ``start``) up to ``sequence`` (whose hash is ``hash``).

    ``signed`` is up to where there is a checkpoint; None of a part that ends before the chain does.
    """

    after: int
    start: bytes
    sequence: int
    hash: bytes
    signed: int | None


def page(tx: Connection, org_id: int, filters: Filters, limit: int) -> Sequence[Row[Any]]:
    """Events, newest first. Each filter has an index in this very order."""
    values: dict[str, Any] = {"org_id": org_id, "limit": limit, **filters.equal}
    wanted = list(filters.equal)
    for name, value in (("from", filters.since), ("to", filters.until)):
        if value is not None:
            wanted.append(name)
            values[name] = value
    if filters.before:
        wanted.append("before")
        values["before_time"], values["before_sequence"] = filters.before
    where = "".join(f" AND {_CONDITIONS[name]}" for name in wanted)
    statement = text(
        "SELECT event_id::text AS event_id, actor, action, service, outcome, occurred_at, recorded_at, request_id,"  # noqa: S608
        " payload, sequence, hash, (extract(epoch FROM occurred_at) * 1000000)::bigint AS position"
        " FROM heartguard_core.audit_events WHERE org_id = :org_id"
        + where
        + " ORDER BY occurred_at DESC, sequence DESC LIMIT :limit"
    )
    return tx.execute(statement, values).all()


def extent(tx: Connection, org_id: int, start: bytes) -> Extent:
    row = tx.execute(
        text(
            "SELECT c.sequence, c.hash, c.signed, a.sequence AS after, a.hash AS start"
            " FROM heartguard_core.audit_chains c"
            " LEFT JOIN LATERAL (SELECT sequence, hash FROM heartguard_core.audit_archives"
            " WHERE org_id = :org_id ORDER BY sequence DESC LIMIT 1) a ON true WHERE c.org_id = :org_id"
        ),
        {"org_id": org_id},
    ).one_or_none()
    if row is None:
        return Extent(0, start, 0, start, 0)
    return Extent(row.after or 0, bytes(row.start or start), row.sequence, bytes(row.hash), row.signed)


def links(tx: Connection, org_id: int, after: int, upto: int, limit: int) -> Sequence[Row[Any]]:
    """Events as the chain has them, in its order, each with its hash at the end."""
    return tx.execute(_LINKS, {"form": _FORM, "org_id": org_id, "after": after, "upto": upto, "limit": limit}).all()


def checkpoints(tx: Connection, org_id: int, after: int, upto: int) -> Sequence[Row[Any]]:
    return tx.execute(_CHECKPOINTS, {"form": _FORM, "org_id": org_id, "after": after, "upto": upto}).all()


def last_sequence(tx: Connection, org_id: int) -> int:
    """Of the last event that there is, wherever the chain should end."""
    found: int | None = tx.execute(
        text("SELECT max(sequence) FROM heartguard_core.audit_events WHERE org_id = :org_id"), {"org_id": org_id}
    ).scalar_one()
    return found or 0
