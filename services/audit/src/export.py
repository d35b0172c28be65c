"""A chain as lines of JSON that can be checked without this service: see docs/audit.md for the format.

Events are only ever added, so all up to the last one of now, read in pieces, are a snapshot; and no transaction
stays open for as long as a client takes to read.
"""

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
from sqlalchemy import Connection

from heartguard.audit.chain import START, ExportEnd, time_text
from heartguard.errors import Invalid
from heartguard.models.base import UNSET
from heartguard.models.common import Detail

from . import db_read
from .queries import ExportQuery
from .signing import Signer
from .verification import canonical_of, checkpoint

FORMAT = "heartguard-audit-1"
PAGE = 2000
SPACED = 1000
"""At most one checkpoint for so many events is written out."""

_encode = msgspec.json.Encoder(order="sorted").encode


class Transactions(Protocol):
    """What can be asked for an organization's rows."""

    def transaction(self, org_id: int | None = None) -> AbstractContextManager[Connection]: ...


class Broken(Exception):
    """The chain is not whole, so what has been written ends here, without the end that a whole export has."""


class Export:
    def __init__(self, database: Transactions, signer: Signer, *, page: int = PAGE) -> None:
        self._database = database
        self._signer = signer
        self._page = page

    def extent(self, org_id: int, query: ExportQuery) -> db_read.Extent:
        """What of the organization's chain is asked for. Raises :class:`Invalid` where that is none of it, and
        :class:`Broken` where there is more than the chain says, or less."""
        with self._database.transaction(org_id) as tx:
            last = db_read.last_sequence(tx, org_id)
            whole = db_read.extent(tx, org_id, START)
            if last > whole.sequence:
                raise Broken(
                    f"the chain of organization {org_id} should end at {whole.sequence}, and goes on to {last}"
                )
            return _part(tx, org_id, whole, query)

    def lines(self, org_id: int, extent: db_read.Extent) -> Iterator[bytes]:
        """That part of the chain; a piece of text at a time. Raises :class:`Broken` where events are missing."""
        digest = hashlib.sha256()
        for piece in self._pieces(org_id, extent):
            digest.update(piece)
            yield piece
        end = ExportEnd(
            events=extent.sequence - extent.after,
            file_sha256=digest.hexdigest(),
            hash=extent.hash.hex(),
            key_id=self._signer.key_id,
            org_id=org_id,
            sequence=extent.sequence,
            signed_at=time_text(datetime.now(UTC)),
        )
        yield _line({"end": end, "signature": self._signer.sign_export(end).hex()})

    def _pieces(self, org_id: int, extent: db_read.Extent) -> Iterator[bytes]:
        yield self._heading(org_id, extent)
        at = extent.after
        while at < extent.sequence:
            upto = min(at + self._page, extent.sequence)
            with self._database.transaction(org_id) as tx:
                rows = db_read.links(tx, org_id, at, upto, self._page)
                signed = {row.sequence // SPACED: row for row in db_read.checkpoints(tx, org_id, at, upto)}
            if len(rows) != upto - at:
                raise Broken(f"events are missing between {at} and {upto} of organization {org_id}")
            chosen = {row.sequence: row for row in signed.values()}
            yield b"".join(self._piece(org_id, row, chosen.get(row.sequence)) for row in rows)
            at = upto

    def _heading(self, org_id: int, extent: db_read.Extent) -> bytes:
        heading = {
            "format": FORMAT,
            "org_id": org_id,
            "first_sequence": extent.after + 1,
            "last_sequence": extent.sequence,
            "previous_hash": extent.start.hex(),
            "key_id": self._signer.key_id,
            "public_key": self._signer.public_key.hex(),
        }
        return _line(heading if extent.signed is None else {**heading, "signed_sequence": extent.signed})

    @staticmethod
    def _piece(org_id: int, row: Any, signed: Any) -> bytes:
        line = b'{"event":%b,"hash":"%b"}\n' % (canonical_of(row), bytes(row.hash).hex().encode())
        if signed is None:
            return line
        return line + _line({"checkpoint": checkpoint(org_id, signed), "signature": bytes(signed.signature).hex()})


def file_name(org_id: int, extent: db_read.Extent) -> str:
    """For a part of a chain; such names are in the chain's order."""
    return f"audit-{org_id}-{extent.after + 1:012d}-{extent.sequence:012d}.ndjson"


def _part(tx: Connection, org_id: int, whole: db_read.Extent, query: ExportQuery) -> db_read.Extent:
    first = whole.after + 1 if query.from_sequence is UNSET else query.from_sequence
    wanted = whole.sequence + 1 if query.to_sequence is UNSET else query.to_sequence
    if not whole.after < first <= whole.sequence + 1:
        raise _outside("from", f"{whole.after + 1} to {whole.sequence + 1}: others are archived, or not there yet")
    if wanted < first:
        raise _outside("to", f"{first} or more: with that event the part begins")
    last = min(wanted, whole.sequence)
    start, end = _hash(tx, org_id, whole, first - 1), _hash(tx, org_id, whole, last)
    return db_read.Extent(first - 1, start, last, end, whole.signed if last == whole.sequence else None)


def _outside(which: str, allowed: str) -> Invalid:
    return Invalid([Detail(path=f"?{which}_sequence", message=f"must be {allowed}")])


def _hash(tx: Connection, org_id: int, whole: db_read.Extent, sequence: int) -> bytes:
    """That event's, which may be the one before the first or the last."""
    ends = {whole.after: whole.start, whole.sequence: whole.hash}
    if sequence in ends:
        return ends[sequence]
    rows = db_read.links(tx, org_id, sequence - 1, sequence, 1)
    if not rows:
        raise Broken(f"event {sequence} of organization {org_id} is missing")
    return bytes(rows[0].hash)


def _line(content: Any) -> bytes:
    return _encode(content) + b"\n"
