"""Puts old months of the trail into files, and takes them out of the database. Done by its owner, never by the service.

A chain goes on from where its archived part ends: ``audit_archives`` says which hash that was.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, NullPool, Row, create_engine, text
from sqlalchemy.engine import make_url

from heartguard.audit import verify
from heartguard.audit.chain import START

from . import db_read
from .export import Export, file_name
from .signing import Signer

LOCK_TIMEOUT_MS = 5_000
_MONTH = re.compile(r"audit_events_([0-9]{4})_([0-9]{2})\Z")


class Refused(Exception):
    """Nothing was put away; the message says why."""


class Owner:
    """The database as its owner sees it."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(
            make_url(url).set(drivername="postgresql+psycopg"),
            poolclass=NullPool,
            connect_args={"connect_timeout": 5, "options": f"-c timezone=UTC -c lock_timeout={LOCK_TIMEOUT_MS}"},
        )

    @contextmanager
    def transaction(self, org_id: int | None = None) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            if org_id is not None:
                enter(connection, org_id)
            yield connection


def archive(owner: Owner, signer: Signer, before: date, folder: Path) -> list[Path]:
    """Write all months that end before that day into ``folder``, check what was written, and drop them.

    The files, one for each organization that had events; none where there is no such month. Nothing is dropped
    unless every file is there, on the disk, and whole. Raises :class:`heartguard.audit.verify.Altered` where the
    trail itself is not, and :class:`heartguard.audit.verify.Unchecked` where an unknown key signed it: that must be
    looked into first. Raises :class:`Refused` for the month that is still written to, and where somebody has recorded
    into an old one meanwhile.
    """
    if before > (newest := datetime.now(UTC).date().replace(day=1)):
        raise Refused(f"The month that begins on {newest} is still being written to: give that day or an earlier one")
    with owner.transaction() as tx:
        months = [name for name in _partitions(tx) if _end(name) <= before]
        organizations = _organizations(tx)
    if not months:
        return []
    cutoff = datetime.combine(max(map(_end, months)), datetime.min.time(), UTC)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    written = {org_id: part for org_id in organizations if (part := _part(owner, org_id, cutoff))}
    files = [_write(owner, signer, org_id, part, folder) for org_id, part in written.items()]
    try:
        _drop(owner, months, cutoff, written)
    except Refused:
        for file in files:  # the next one's will hold the same and more
            file.unlink()
        raise
    return files


def _drop(owner: Owner, months: Sequence[str], cutoff: datetime, written: Mapping[int, db_read.Extent]) -> None:
    """Drop the months, unless they hold an event beyond what was written."""
    with owner.transaction() as tx:
        tx.execute(text("LOCK TABLE heartguard_core.audit_events IN ACCESS EXCLUSIVE MODE"))  # as dropping would
        for org_id in _organizations(tx):
            enter(tx, org_id)
            last = _last(tx, org_id, cutoff)
            if last and (org_id not in written or last.sequence > written[org_id].sequence):
                raise Refused(f"Organization {org_id} has just recorded more into these months: archive them again")
        for org_id, part in written.items():
            _note(tx, org_id, part)
        for name in months:  # names that PostgreSQL itself gave, of this very form
            tx.execute(text(f"ALTER TABLE heartguard_core.audit_events DETACH PARTITION heartguard_core.{name}"))
            tx.execute(text(f"DROP TABLE heartguard_core.{name}"))


def enter(tx: Connection, org_id: int) -> None:
    tx.execute(text("SELECT set_config('heartguard.org_id', :org_id, true)"), {"org_id": str(org_id)})


def _organizations(tx: Connection) -> Sequence[int]:
    return tx.execute(text("SELECT org_id FROM heartguard_core.audit_chains ORDER BY 1")).scalars().all()


def _partitions(tx: Connection) -> Sequence[str]:
    names = tx.execute(
        text(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = CAST('heartguard_core.audit_events' AS regclass) ORDER BY 1"
        )
    ).scalars()
    return [name for name in names if _MONTH.match(name)]


def _end(partition: str) -> date:
    """The first day after the month."""
    found = _MONTH.match(partition)
    assert found
    year, month = int(found[1]), int(found[2])
    return date(year + month // 12, month % 12 + 1, 1)


def _part(owner: Owner, org_id: int, cutoff: datetime) -> db_read.Extent | None:
    """What of an organization's chain was recorded before; None where nothing was."""
    with owner.transaction(org_id) as tx:
        whole = db_read.extent(tx, org_id, START)
        last = _last(tx, org_id, cutoff)
    return db_read.Extent(whole.after, whole.start, last.sequence, bytes(last.hash), None) if last else None


def _last(tx: Connection, org_id: int, cutoff: datetime) -> Row[Any] | None:
    return tx.execute(
        text(
            "SELECT sequence, hash FROM heartguard_core.audit_events"
            " WHERE org_id = :org_id AND recorded_at < :cutoff ORDER BY sequence DESC LIMIT 1"
        ),
        {"org_id": org_id, "cutoff": cutoff},
    ).one_or_none()


def _write(owner: Owner, signer: Signer, org_id: int, part: db_read.Extent, folder: Path) -> Path:
    file = folder / file_name(org_id, part)
    draft = file.with_suffix(".part")
    with draft.open("wb") as out:
        out.writelines(Export(owner, signer).lines(org_id, part))
        out.flush()
        os.fsync(out.fileno())
    with draft.open("rb") as written:
        verify.verify(written, signer.public_keys, None, lambda _: None)
    return draft.rename(file)


def _note(tx: Connection, org_id: int, part: db_read.Extent) -> None:
    enter(tx, org_id)
    tx.execute(
        text("INSERT INTO heartguard_core.audit_archives (org_id, sequence, hash) VALUES (:org_id, :sequence, :hash)"),
        {"org_id": org_id, "sequence": part.sequence, "hash": part.hash},
    )
