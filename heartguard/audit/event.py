"""What an event of the audit trail is, and how it travels."""

import random
import re
import time
import uuid
from datetime import UTC, datetime
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from .masking import Payload, mask_text, masked

Outcome = Literal["intent", "success", "failure", "denied", "unknown"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

PLATFORM = 0
"""The chain of what belongs to no organization: an unknown address that tried to sign in, an anonymous request.

No organization has this id, so no organization's admin can read it.
"""
ANONYMOUS = "anonymous"
MAX_TEXT = 256
"""Characters of an actor or a service."""

_SPACE = uuid.UUID("5b0c8a4e-2f0d-4a67-9b0b-0c3c6e7f9a51")
"""The namespace (RFC 9562, version 5) in which an intent's id gives those of what follows it."""

_action = re.compile(r"[A-Z][A-Z0-9_]{0,63}").fullmatch


class Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One event, masked already. ``occurred_at`` is RFC 3339 in UTC with six decimals, so it sorts as text."""

    event_id: Annotated[str, Meta(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", max_length=36)]
    org_id: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    actor: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
    action: Annotated[str, Meta(pattern="^[A-Z][A-Z0-9_]{0,63}$", max_length=64)]
    service: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
    outcome: Outcome
    occurred_at: Annotated[
        str,
        Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$", max_length=27),
    ]
    request_id: Annotated[str, Meta(max_length=128)] | None = None
    payload: Payload = {}


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(Event)


def make(
    action: str,
    actor: str,
    *,
    service: str,
    org_id: int = PLATFORM,
    outcome: Outcome = "success",
    request_id: str | None = None,
    payload: dict[str, object] | None = None,
    event_id: str | None = None,
    occurred_at: str | None = None,
) -> Event:
    """An event that happens now; secrets and personal data are masked here, before it goes anywhere.

    ``action`` is UPPER_SNAKE; another one is a ValueError, as it stands in the code.
    """
    if not _action(action):
        raise ValueError(f"{action!r} is no name of an action")
    return Event(
        event_id=event_id or new_event_id(),
        org_id=org_id,
        actor=mask_text(actor)[:MAX_TEXT] or ANONYMOUS,
        action=action,
        service=mask_text(service)[:MAX_TEXT],
        outcome=outcome,
        occurred_at=occurred_at or now(),
        request_id=mask_text(request_id)[:128] if request_id else None,
        payload=masked(payload) if payload else {},
    )


def encode(event: Event) -> bytes:
    return _encoder.encode(event)


def decode(raw: bytes) -> Event:
    """Raises :class:`msgspec.MsgspecError` (or UnicodeDecodeError, RecursionError) where it is none."""
    return _decoder.decode(raw)


def now() -> str:
    """This moment, as :class:`Event` has it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def new_event_id() -> str:
    """A UUID of version 7: those of one time lie together, so that an index of millions of them stays quick."""
    digits = f"{time.time_ns() // 1_000_000:012x}{random.getrandbits(74):019x}"
    variant = "89ab"[int(digits[15], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-7{digits[12:15]}-{variant}{digits[16:19]}-{digits[19:31]}"


def outcome_id(intent: str) -> str:
    """The id of the outcome of the intent with that id; whoever knows one knows the other."""
    return str(uuid.uuid5(_SPACE, f"{intent}/outcome"))


def unknown_id(intent: str) -> str:
    """The id of the report that an intent's outcome is not known. Another than the outcome's, which may come late."""
    return str(uuid.uuid5(_SPACE, f"{intent}/unknown"))
