"""Finds what a crash has left half done, and mends it: rows without their object, objects without their row.

A row that has been ``pending`` or ``deleting`` for long names all that is unfinished, so it is looked for often. All
rows and objects are compared seldom: that finds what no step of ours leaves behind. An object without a row is
removed. A row whose object is gone becomes ``lost``, which hides it like a deleted one; nothing else can be done, but
should the object come back (from a backup, or with a disk that was not mounted) then so does the item.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Counter

from heartguard.database import Database
from heartguard.logs import log
from heartguard.paths import shown

from . import db
from .names import ObjectName
from .spool import clear_abandoned
from .store import PAGE, Store

GRACE = 120.0
"""Seconds after which nobody is at work on a row any more: the gateway has given up long before."""
COMPARE_EVERY = 3600.0
"""Seconds between two comparisons of all rows and objects."""
SURPLUS = 100
"""More objects without a row than this, and than objects with one, mean that this is not our database or our store."""

MENDED = Counter("heartguard_media_mended_total", "Rows and objects that had to be mended.", ["what"])


class Mender:
    """Any number of processes may do this at once."""

    def __init__(self, database: Database, store: Store, incoming: Path, *, grace: float = GRACE) -> None:
        self._database = database
        self._store = store
        self._incoming = incoming
        self._grace = grace
        self._owed = False
        """Whether a comparison was begun and came to no end: then the next sweep tries again."""

    def sweep(self) -> None:
        clear_abandoned(self._incoming)
        try:
            self.finish()
        finally:
            self._compare_if_due()

    def finish(self) -> None:
        """Take back uploads that came to no end, and bring removals to theirs."""
        begun, tried = time.monotonic(), PAGE
        while tried == PAGE:
            # What cannot be removed changes when it is tried, and only what changed before this began is looked for.
            grace = self._grace + time.monotonic() - begun
            with self._database.transaction() as tx:
                left = db.unfinished(tx, grace, PAGE)
            tried = sum(map(self._clear_away, left))

    def _compare_if_due(self) -> None:
        with self._database.transaction() as tx:
            claimed = db.claim_sweep(tx, COMPARE_EVERY)
        self._owed = self._owed or claimed
        if self._owed:
            self.compare()
            self._owed = False

    def compare(self) -> None:
        """Compare all rows with all objects."""
        objects, rows = _names(self._store), self._rows()
        name, row = next(objects, None), next(rows, None)
        surplus: list[ObjectName] = []
        matched = 0
        while name or row:
            if row is None or (name is not None and str(name) < str(row.name)):
                assert name is not None
                surplus.append(name)
                name = next(objects, None)
            elif name is None or str(row.name) < str(name):
                self._lose(row)
                row = next(rows, None)
            else:
                matched += 1
                self._find_again(row)
                name, row = next(objects, None), next(rows, None)
        self._remove_surplus(surplus, matched)

    def _rows(self) -> Iterator[db.Known]:
        after = ""
        while True:
            with self._database.transaction() as tx:
                page = db.known_after(tx, after, PAGE)
            yield from page
            if len(page) < PAGE:
                return
            after = str(page[-1].name)

    def _clear_away(self, known: db.Known) -> bool:
        """Whether it was tried; not where somebody else is at it. Where it failed its turn comes behind all others."""
        with self._database.transaction(known.name.org_id) as tx:
            if not db.lock(tx, known):
                return False
            if removed := self._remove(known.name):
                db.forget(tx, known.name)
            else:
                db.change_state(tx, known, known.state)
        if removed:
            _note(known.state, known.name)
        return True

    def _remove(self, name: ObjectName) -> bool:
        """Whether that could be done: one object's trouble must not stop the others. A store that is away does."""
        try:
            self._store.remove(name)
        except Exception:  # noqa: BLE001  (whatever it is, the others have to be mended)
            self._store.check()
            log.exception("not removed", object=shown(str(name), ""))
            return False
        return True

    def _lose(self, row: db.Known) -> None:
        """The store may have got the object only after it was asked: so it is asked again."""
        if row.state != db.STORED or self._store.has(row.name):
            return
        with self._database.transaction(row.name.org_id) as tx:
            if db.change_state(tx, row, db.LOST):
                _note("lost", row.name)

    def _find_again(self, row: db.Known) -> None:
        if row.state != db.LOST:
            return
        with self._database.transaction(row.name.org_id) as tx:
            if db.change_state(tx, row, db.STORED):
                _note("found", row.name)

    def _remove_surplus(self, surplus: list[ObjectName], matched: int) -> None:
        if len(surplus) > max(SURPLUS, matched):
            log.error(
                "most objects have no row: is this the right database, and the right store?", objects=len(surplus)
            )
            return
        for name in surplus:
            with self._database.transaction(name.org_id) as tx:
                if db.exists(tx, name):
                    continue
            # A row is there before its object is, so there is none on its way.
            if self._remove(name):
                _note("surplus", name)


def _names(store: Store) -> Iterator[ObjectName]:
    for page in store.names():
        yield from page


def _note(what: str, name: ObjectName) -> None:
    MENDED.labels(what).inc()
    log.warning("mended", what=what, object=shown(str(name), ""))
