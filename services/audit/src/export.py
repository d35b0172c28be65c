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

from . import db_read
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

    def lines(self, org_id: int) -> Iterator[bytes]:
        """The organization's chain; a piece of text at a time. Raises :class:`Broken` where it has more."""
        with self._database.transaction(org_id) as tx:
            last = db_read.last_sequence(tx, org_id)
            extent = db_read.extent(tx, org_id, START)
        if last > extent.sequence:
            raise Broken(f"the chain of organization {org_id} should end at {extent.sequence}, and goes on to {last}")
        return self.part(org_id, extent)

    def part(self, org_id: int, extent: db_read.Extent) -> Iterator[bytes]:
        """A part of it."""
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


def _line(content: Any) -> bytes:
    return _encode(content) + b"\n"
