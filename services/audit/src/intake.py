"""Where events come from: the stream, and the outbox."""

import os
import secrets
import socket
from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from heartguard.audit.stream import FIELD, GROUP, STREAM
from heartguard.database import Database

from . import db
from .recorder import BATCH, Recorder
from .worker import Worker

BLOCK_MS = 1000
"""How long to wait for an event before looking for something else to do."""
SILENT_MS = 3_600_000
"""A process that was not heard of for so long, and holds nothing, is forgotten."""
REST = 0.1
"""Seconds to wait after less than a full batch, and where the outbox was empty. A transaction costs about as much for a
few events as for hundreds; without a rest there would be one after the other as long as requests come."""

Entries = list[tuple[bytes, dict[bytes, bytes]]]


class StreamReader(Worker):
    """Reads the stream as one of a group of consumers. An event is acknowledged once it is committed.

    ``valkey`` must wait for an answer longer than :data:`BLOCK_MS`.
    """

    def __init__(self, valkey: Redis, database: Database, recorder: Recorder, *, abandoned_ms: int) -> None:
        super().__init__("audit stream")
        self._valkey = valkey
        self._database = database
        self._recorder = recorder
        self._abandoned_ms = abandoned_ms
        self._consumer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._pending: Entries = []
        self._claim_from: Any = "0-0"

    def work(self) -> float:
        if not self._pending:
            self._pending = self._next()
        if not self._pending:
            return 0.0
        self._record(self._pending)
        recorded, self._pending = self._pending, []
        self._acknowledge([name for name, _ in recorded])
        return 0.0 if len(recorded) == BATCH else REST

    def _next(self) -> Entries:
        """Entries that nobody was given yet, or that whoever was given them has abandoned."""
        try:
            return self._abandoned() or self._new()
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self._make_group()
            return []

    def _new(self) -> Entries:
        found: Any = self._valkey.xreadgroup(GROUP, self._consumer, {STREAM: ">"}, count=BATCH, block=BLOCK_MS)
        if isinstance(found, dict):
            return [entry for page in found.get(STREAM.encode(), []) for entry in page]
        return found[0][1] if found else []

    def _abandoned(self) -> Entries:
        answer: Any = self._valkey.xautoclaim(
            STREAM, GROUP, self._consumer, min_idle_time=self._abandoned_ms, start_id=self._claim_from, count=BATCH
        )
        self._claim_from, entries = answer[0], answer[1]
        return [(name, fields) for name, fields in entries if fields]

    def _make_group(self) -> None:
        try:
            self._valkey.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def _record(self, entries: Entries) -> None:
        self._recorder.prepare()
        raws = [db.Raw(fields.get(FIELD, repr(fields).encode())) for _, fields in entries]
        with self._database.transaction() as tx:
            self._recorder.record(tx, raws, "stream")

    def _acknowledge(self, names: Sequence[bytes]) -> None:
        with self._valkey.pipeline(transaction=True) as pipeline:
            pipeline.xack(STREAM, GROUP, *names)
            pipeline.xdel(STREAM, *names)
            pipeline.execute()

    def forget_silent(self) -> None:
        """Forget consumers that are gone, of which every start of the service leaves one."""
        for consumer in self._valkey.xinfo_consumers(STREAM, GROUP):
            if consumer["pending"] == 0 and consumer["idle"] > SILENT_MS:
                self._valkey.xgroup_delconsumer(STREAM, GROUP, consumer["name"])


class OutboxReader(Worker):
    """Takes events out of the outbox and into their chains in one transaction; one process does so at a time."""

    def __init__(self, database: Database, recorder: Recorder) -> None:
        super().__init__("audit outbox")
        self._database = database
        self._recorder = recorder

    def work(self) -> float:
        self._recorder.prepare()
        with self._database.transaction() as tx:
            taken = db.take_from_outbox(tx, BATCH)
            if taken:
                self._recorder.record(tx, taken, "outbox")
        return 0.0 if taken else REST
