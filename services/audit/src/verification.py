"""Goes along an organization's chain, from its beginning to its end, and recomputes every hash.

A chain longer than what can be looked at while a client waits is gone along in pieces: a call that runs out of
time remembers how far it came, and says 503; the next one goes on from there.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import msgspec
from sqlalchemy import Row

from heartguard.audit.chain import START, Checkpoint, Link, canonical, next_hash
from heartguard.database import Database
from heartguard.errors import Unavailable
from heartguard.models.audit_event import AuditVerification
from heartguard.models.base import UNSET

from . import db_read
from .recorder import BATCH, CHECKPOINT_EVERY
from .signing import Signer

BUDGET = 12.0
"""Seconds for one call; the gateway waits 20."""
PAGE = 5000
KEPT = 1000.0
"""Seconds after which what was looked at has to be looked at again."""
UNSIGNED = CHECKPOINT_EVERY + BATCH
"""Fewer events are between two checkpoints."""


@dataclass
class Walk:
    """How far along a chain somebody has come, and up to where a checkpoint vouches for it; ``bad`` is the first
    sequence that is not as it must be."""

    extent: db_read.Extent
    sequence: int
    hash: bytes
    signed: int
    begun: float = field(default_factory=time.monotonic)
    bad: int | None = None

    @property
    def ended(self) -> bool:
        return self.bad is not None or self.sequence >= self.extent.sequence

    def continues(self, extent: db_read.Extent) -> bool:
        """Whether what was looked at still counts, for a chain of that extent."""
        return self.extent.after == extent.after and time.monotonic() - self.begun < KEPT


class Verification:
    """``budget`` is in seconds."""

    def __init__(self, database: Database, signer: Signer, *, budget: float = BUDGET, page: int = PAGE) -> None:
        self._database = database
        self._signer = signer
        self._budget = budget
        self._page = page
        self._lock = threading.Lock()
        self._walks: dict[int, Walk] = {}

    def verify(self, org_id: int) -> AuditVerification:
        """Raises :class:`Unavailable` where the chain is long and there is more to look at: ask again."""
        walk = self._resume(org_id)
        end = time.monotonic() + self._budget
        while not walk.ended:
            self._look_at_page(org_id, walk)
            if time.monotonic() > end:
                break
        if not walk.ended:
            self._keep(org_id, walk)
            raise Unavailable(
                f"Verified up to {walk.sequence} of {walk.extent.sequence} events so far; ask again for the rest"
            )
        with self._lock:
            self._walks.pop(org_id, None)  # who asks again wants it looked at again
        if walk.bad is None:
            self._look_at_end(org_id, walk)
        return AuditVerification(
            valid=walk.bad is None,
            events=walk.sequence - walk.extent.after,
            first_sequence=min(walk.extent.after + 1, walk.extent.sequence),
            last_sequence=walk.extent.sequence,
            head_hash=walk.extent.hash.hex(),
            first_bad_sequence=UNSET if walk.bad is None else walk.bad,
        )

    def _resume(self, org_id: int) -> Walk:
        with self._database.transaction(org_id) as tx:
            now = db_read.extent(tx, org_id, START)
        with self._lock:
            known = self._walks.get(org_id)
        if known and known.continues(now):
            return replace(known, extent=now)  # others may go on from there too
        return Walk(now, now.after, now.start, now.after)

    def _keep(self, org_id: int, walk: Walk) -> None:
        """Remember it, unless another caller has come further meanwhile."""
        with self._lock:
            known = self._walks.get(org_id)
            if known is None or not known.continues(walk.extent) or known.sequence < walk.sequence:
                self._walks[org_id] = walk

    def _look_at_page(self, org_id: int, walk: Walk) -> None:
        upto = min(walk.sequence + self._page, walk.extent.sequence)
        with self._database.transaction(org_id) as tx:
            rows = db_read.links(tx, org_id, walk.sequence, upto, self._page + 1)  # one that is there twice, too
            signed = db_read.checkpoints(tx, org_id, walk.sequence, upto)
        hashes = self._look_at(rows, walk)
        if walk.bad is None and walk.sequence < upto:
            walk.bad = walk.sequence + 1  # it is missing
        wrong = [row.sequence for row in signed if not self._is_right(org_id, row, hashes)]
        wrong += self._unsigned(walk, [row.sequence for row in signed])
        if wrong and (walk.bad is None or min(wrong) < walk.bad):
            walk.bad = min(wrong)

    @staticmethod
    def _unsigned(walk: Walk, signed: Sequence[int]) -> list[int]:
        """Where events begin that no checkpoint vouches for, though they are more than the recorder leaves so."""
        marks = [walk.signed, *signed, walk.sequence]
        walk.signed = marks[-2]
        return [mark + 1 for mark, following in pairwise(marks) if following - mark >= UNSIGNED]

    @staticmethod
    def _look_at(rows: Sequence[Row[Any]], walk: Walk) -> dict[int, bytes]:
        """The hashes that the events really have, up to the first that is wrong."""
        hashes: dict[int, bytes] = {}
        for row in rows:
            found = next_hash(walk.hash, canonical_of(row))
            if row.sequence != walk.sequence + 1 or found != bytes(row.hash):
                walk.bad = walk.sequence + 1
                break
            walk.sequence, walk.hash = row.sequence, found
            hashes[row.sequence] = found
        return hashes

    def _is_right(self, org_id: int, row: Row[Any], hashes: dict[int, bytes]) -> bool:
        """Whether a checkpoint says what the chain does, and was signed with a key that is known."""
        said = checkpoint(org_id, row)
        if row.sequence in hashes and hashes[row.sequence].hex() != said.hash:
            return False
        return self._signer.signed(said, bytes(row.signature))

    def _look_at_end(self, org_id: int, walk: Walk) -> None:
        """Nothing may be missing at the end, where no hash could tell; checkpoints neither."""
        if walk.hash != walk.extent.hash:
            walk.bad = walk.extent.sequence
            return
        with self._database.transaction(org_id) as tx:
            beyond = db_read.checkpoints(tx, org_id, walk.sequence, 2**63 - 1)
            last = max(db_read.last_sequence(tx, org_id), *(row.sequence for row in beyond), 0)
            end = db_read.extent(tx, org_id, START).sequence  # asked for last: the chain may grow meanwhile
        if last > end:
            walk.bad = end + 1
        elif walk.signed < max(walk.extent.signed or 0, walk.sequence - CHECKPOINT_EVERY + 1):
            walk.bad = walk.signed + 1


def _link(columns: Sequence[Any]) -> Link:
    action, actor, event_id, occurred_at, org_id, outcome, payload, recorded_at, request_id, sequence, service = columns
    return Link(
        action, actor, event_id, occurred_at, org_id, outcome, msgspec.Raw(payload.encode()), recorded_at, request_id,
        sequence, service,
    )  # fmt: skip


def canonical_of(row: Row[Any]) -> bytes:
    """The canonical form of a row of :func:`.db_read.links`."""
    return canonical(_link(row[:-1]))


def checkpoint(org_id: int, row: Row[Any]) -> Checkpoint:
    return Checkpoint(
        hash=bytes(row.hash).hex(),
        key_id=row.key_id,
        org_id=org_id,
        sequence=row.sequence,
        signed_at=row.signed_at,
    )
