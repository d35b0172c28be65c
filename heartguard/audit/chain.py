"""The hash chain of an organization's events.

``hash = SHA-256(previous hash ‖ canonical event)``; before the first event stand 32 zero bytes. The canonical
event is a JSON object in UTF-8, without white space, with the keys below, in alphabetical order. Strings escape
only ``"``, ``\\`` and control characters (in the short form where there is one, else ``\\u00xx``); times are in
UTC with six decimals; ``request_id`` is null where there is none; the keys of ``payload`` are in the order of
their code points. An export holds these very bytes, so that nobody has to make them to check them.
"""

import hashlib
from datetime import UTC, datetime

import msgspec

from .event import Event
from .masking import Payload

START = bytes(32)
"""Stands before the first event."""
CHECKPOINT_CONTEXT = b"heartguard audit checkpoint\n"
EXPORT_CONTEXT = b"heartguard audit export\n"
"""These stand before what is signed, which so can be taken for nothing else."""


class Link(msgspec.Struct, frozen=True):
    """The canonical event."""

    action: str
    actor: str
    event_id: str
    occurred_at: str
    org_id: int
    outcome: str
    payload: msgspec.Raw
    recorded_at: str
    request_id: str | None
    sequence: int
    service: str


_encode = msgspec.json.Encoder(order="sorted").encode


def link(event: Event, sequence: int, recorded_at: str) -> Link:
    return Link(
        event.action,
        event.actor,
        event.event_id,
        event.occurred_at,
        event.org_id,
        event.outcome,
        msgspec.Raw(canonical_payload(event.payload)),
        recorded_at,
        event.request_id,
        sequence,
        event.service,
    )


def canonical(one: Link) -> bytes:
    return _encode(one)


def canonical_payload(payload: Payload) -> bytes:
    return _encode(payload)


def next_hash(previous: bytes, canonical_event: bytes) -> bytes:
    return hashlib.sha256(previous + canonical_event).digest()


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint says, and signs in this form: in that organization's chain, this event had this hash then."""

    hash: str
    key_id: str
    org_id: int
    sequence: int
    signed_at: str


class ExportEnd(msgspec.Struct, frozen=True, kw_only=True):
    """What the last line of an export says, and signs: which bytes stand before it, and where the chain ended then."""

    events: int
    file_sha256: str
    hash: str
    key_id: str
    org_id: int
    sequence: int
    signed_at: str


def time_text(at: datetime) -> str:
    """A time as the canonical form has it."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
