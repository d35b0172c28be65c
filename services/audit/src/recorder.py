"""Adds events to their organizations' chains."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError

from heartguard.audit import PLATFORM, outcome_id
from heartguard.audit.chain import START, Checkpoint, canonical, link, next_hash, time_text
from heartguard.audit.event import Event, decode, encode, make
from heartguard.database import Database, is_unavailable
from heartguard.logs import log

from . import db, instruments
from .signing import Signer

BATCH = 2000
"""At most so many are recorded in one transaction: after an outage, fewer commits are most of what makes it quick."""
CHECKPOINT_EVERY = 1000
"""Events of a chain after which it is signed at once; else it is signed as time passes."""
INTENT = "intent"
"""The key of an outcome's payload that names its intent."""
LONGEST_POISON = 65_536


class Recorder:
    """Records each event once, however often it comes. Any number of processes may do so at once."""

    def __init__(self, database: Database, signer: Signer) -> None:
        self._database = database
        self._signer = signer
        self._months: set[tuple[int, int]] = set()

    def prepare(self) -> None:
        """Make the partitions of now and tomorrow, which takes a lock that recording would wait for."""
        now = datetime.now(UTC)
        for at in (now, now + timedelta(days=1)):
            if (at.year, at.month) not in self._months:
                with self._database.transaction() as tx:
                    db.ensure_partition(tx, at)
                self._months.add((at.year, at.month))

    def record(self, tx: Connection, raws: Sequence[db.Raw], source: str) -> None:
        """Record the events within the transaction. What is none, or cannot be recorded, is put aside."""
        events: list[Event] = []
        poison: list[db.Poison] = []
        for raw in raws:
            try:
                events.append(remade(decode(raw.event), raw.org_id, raw.service))
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                poison.append(_poison(raw.org_id or PLATFORM, source, repr(error), raw.event))
        poison += self._append_all(tx, events, source)
        if poison:
            db.insert_poison(tx, poison)
            instruments.POISON.labels(source).inc(len(poison))
            log.error("audit events put aside", source=source, count=len(poison), reason=poison[0].reason[:200])

    def append(self, tx: Connection, events: Sequence[Event]) -> int:
        """Add them to their chains; how many were not there before."""
        by_key: dict[db.Key, Event] = {}
        for event in events:
            by_key.setdefault((event.org_id, event.event_id), event)
        fresh = db.claim_ids(tx, sorted(by_key, key=itemgetter(1, 0)))
        chains: defaultdict[int, list[Event]] = defaultdict(list)
        for key, event in by_key.items():
            if key in fresh:
                chains[event.org_id].append(event)
        for org_id in sorted(chains):  # all lock in the same order, so none waits in a circle
            self._extend(tx, org_id, chains[org_id])
        db.leave(tx)
        self._follow_intents(tx, [event for events in chains.values() for event in events])
        return len(fresh)

    def sign(self, tx: Connection, org_id: int) -> None:
        """Sign the chain as far as it is."""
        head = db.lock_chain(tx, org_id, START)
        if head.signed < head.sequence:
            self._sign(tx, org_id, head.sequence, head.hash)

    def _append_all(self, tx: Connection, events: Sequence[Event], source: str) -> list[db.Poison]:
        if not events:
            return []
        try:
            with tx.begin_nested():
                fresh = self.append(tx, events)
        except DBAPIError as error:
            if is_unavailable(error) and not isinstance(error, DataError):
                raise
            if len(events) == 1:
                return [_poison(events[0].org_id, source, type(error.orig).__name__, encode(events[0]))]
            return [one for event in events for one in self._append_all(tx, [event], source)]
        instruments.RECORDED.labels(source).inc(fresh)
        instruments.DUPLICATES.labels(source).inc(len(events) - fresh)
        return []

    def _extend(self, tx: Connection, org_id: int, events: Sequence[Event]) -> None:
        head = db.lock_chain(tx, org_id, START)
        if (head.recorded_at.year, head.recorded_at.month) not in self._months:  # the clocks differ
            db.ensure_partition(tx, head.recorded_at)
        recorded_at = time_text(head.recorded_at)
        sequence, hash_ = head.sequence, head.hash
        rows: list[db.Row] = []
        for event in events:
            sequence += 1
            linked = link(event, sequence, recorded_at)
            hash_ = next_hash(hash_, canonical(linked))
            rows.append(
                db.Row(
                    sequence, event.event_id, event.actor, event.action, event.service, event.outcome,
                    event.occurred_at, recorded_at, event.request_id, bytes(linked.payload).decode(), hash_,
                )
            )  # fmt: skip
        try:
            db.insert_events(tx, org_id, rows)
        except db.NoPartition:
            self._months.clear()  # so that the next try makes it
            raise
        db.move_head(tx, org_id, sequence, hash_, head.recorded_at)
        if sequence - head.signed >= CHECKPOINT_EVERY:
            self._sign(tx, org_id, sequence, hash_)

    def _sign(self, tx: Connection, org_id: int, sequence: int, hash_: bytes) -> None:
        checkpoint = Checkpoint(
            hash=hash_.hex(),
            key_id=self._signer.key_id,
            org_id=org_id,
            sequence=sequence,
            signed_at=time_text(datetime.now(UTC)),
        )
        db.insert_checkpoint(tx, checkpoint, self._signer.sign_checkpoint(checkpoint))
        # In the log it is out of reach for whoever could alter the database.
        log.info("audit checkpoint", org_id=org_id, sequence=sequence, hash=checkpoint.hash)

    @staticmethod
    def _follow_intents(tx: Connection, events: Sequence[Event]) -> None:
        opened = [
            (event.event_id, event.org_id, encode(event).decode(), outcome_id(event.event_id))
            for event in events
            if event.outcome == "intent"
        ]
        if opened:
            db.open_intents(tx, opened)
        if closed := [(event.org_id, intent) for event in events if (intent := intent_of(event))]:
            db.close_intents(tx, closed)


def intent_of(event: Event) -> str | None:
    """The id of the intent whose outcome the event is."""
    intent = event.payload.get(INTENT)
    return intent if isinstance(intent, str) and outcome_id(intent) == event.event_id else None


def remade(event: Event, org_id: int | None, service: str | None) -> Event:
    """The event as it is stored: masked, in case it was not; its times are such that there are; of that organization
    and service, where they are given, whatever it says itself."""
    datetime.fromisoformat(event.occurred_at)
    return make(
        event.action,
        event.actor,
        service=event.service if service is None else service,
        org_id=event.org_id if org_id is None else org_id,
        outcome=event.outcome,
        request_id=event.request_id,
        payload=dict(event.payload),
        event_id=event.event_id,
        occurred_at=event.occurred_at,
    )


def _poison(org_id: int, source: str, reason: str, raw: bytes) -> db.Poison:
    return db.Poison(org_id, source, reason[:1000], raw[:LONGEST_POISON])
