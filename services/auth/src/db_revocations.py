"""The SQL of revocations that gateways are to know, and of rows that nothing can ask for any more."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, text

from heartguard.revocations import Revocation


def unpublished(tx: Connection, limit: int) -> list[Revocation]:
    """Revocations that still matter and are not known to have reached the gateways' list."""
    rows = tx.execute(
        text(
            "SELECT kind, id, expires_at FROM heartguard_core.revoked_tokens"
            " WHERE NOT published AND expires_at > now() ORDER BY kind, id LIMIT :limit"
        ),
        {"limit": limit},
    )
    return _revocations(rows)


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
    return _revocations(rows)


def _revocations(rows: Iterable[Sequence[Any]]) -> list[Revocation]:
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
