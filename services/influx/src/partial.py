"""Batches of which the good points are stored although others are wrong.

Only where InfluxDB's agents write, which drop the whole batch that is answered with 400 or 422. What is wrong is looked
for in steps, and each step only where the one before says that there is something: lines that cannot be read, points
that break a rule, fields of another type than the stored one, and what the store refuses all the same.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from heartguard.errors import Invalid, ServiceError, Unavailable
from heartguard.models.common import Detail

from .check import MAX_DETAILS, Check
from .culprits import unreadable
from .errors import LeftOut, PartlyWritten, Unreadable
from .gathering import Gathered, Points, gather
from .heads import Heads
from .left_out import place, summary
from .line_protocol import Entry
from .points import Rules, shown
from .store import TYPES, FieldType, Store, StoredBucket, TypeConflict

MOST_READ = 500_000
"""Lines of a batch that are read one by one, in some seconds; of those that cannot be read only the first are."""
MOST_WRITES = 64
"""Parts of a batch that the store is sent to find out which points it refuses."""

Refusal = TypeConflict | Unreadable | PartlyWritten


class PartialWrite:
    """One batch on its way into a bucket. ``root`` begins the paths of its points.

    ``reopen`` gives the bucket and its rules anew, where the store has refused points as it does if they changed.
    ``measurements`` are those of lines that cannot be read, as far as they are known, by line.
    """

    def __init__(
        self,
        store: Store,
        bucket: StoredBucket,
        heads: Heads,
        rules: Rules,
        root: str,
        reopen: Callable[[], tuple[StoredBucket, Rules]],
        measurements: dict[int, str],
    ) -> None:
        self._store = store
        self._bucket = bucket
        self._heads = heads
        self._check = Check(root, rules)
        self._reopen = reopen
        self._untimed: dict[bytes, int] = {}
        self._left_out = self._told = self._unsettled = self._writes = 0
        self._conflicts = 0
        self._measurements = measurements

    def write(self, entries: Iterable[Entry | Detail | int], *, conflict: bool = False) -> None:
        """Store what is good, durably; raises :class:`LeftOut` where that is not all. Nothing is stored where no line
        can be read, or a point is another user's.

        Of bad lines that are not to be named ``entries`` give the number. ``conflict`` says that some fields have
        another type than the stored one.
        """
        points = self._read(entries)
        total = self._left_out + len(points)
        if not total:
            raise ServiceError(400, "The batch holds no points")
        if not points:
            raise ServiceError(400, self._message(total), details=self._details())
        if self._gathered(points) is None:
            points = self._judged(points)
        if conflict:
            points = self._without_conflicts(points)
        self._write(points)
        if self._left_out or self._unsettled:
            are_conflicts = self._conflicts == self._left_out and not self._unsettled
            raise LeftOut(self._message(total), self._details(), are_conflicts=are_conflicts)

    def _read(self, entries: Iterable[Entry | Detail | int]) -> list[Entry]:
        points: list[Entry] = []
        for number, entry in enumerate(entries):
            if number >= MOST_READ:
                raise _too_many(f"the batch holds more than {MOST_READ} points that have to be read one by one")
            if isinstance(entry, tuple):
                points.append(entry if entry[4] is not None else self._timed(entry))
            elif isinstance(entry, Detail):
                self._left_out += 1
                self._check.found(entry)
            else:
                self._left_out += entry
        if self._untimed:
            self._check.rules = self._allowing_untimed(self._check.rules)
        return points

    def _timed(self, point: Entry) -> Entry:
        """The point with a time of its own: that of receipt, and 1 ns more for each before it in its series.

        It stays the same however often the point is sent to the store.
        """
        index, measurement, tags, fields, _ = point
        key = self._check.rules.series(measurement, tags).key
        time = self._untimed.get(key, self._check.rules.received - 1) + 1
        self._untimed[key] = time
        return index, measurement, tags, fields, time

    def _allowing_untimed(self, rules: Rules) -> Rules:
        return replace(rules, newest=max(rules.newest, *self._untimed.values())) if self._untimed else rules

    def _gathered(self, points: list[Entry]) -> Gathered | None:
        _, measurements, tags, fields, times = zip(*points, strict=True)
        return gather(Points(measurements, tags, fields, times), self._check.rules, self._heads)

    def _judged(self, points: list[Entry]) -> list[Entry]:
        """Those that break no rule."""
        try:
            good = [point for point in points if self._is_good(point)]
        except Invalid as many:  # too many series to be judged
            raise _too_many(many.details[0].message) from None
        self._check.refuse_foreign()
        return good

    def _is_good(self, point: Entry) -> bool:
        if self._check.judge(*point):
            return True
        self._leave_out(point)
        return False

    def _without_conflicts(self, points: list[Entry]) -> list[Entry]:
        """Those whose fields have the stored types, or else those that the first one of the batch gives them."""
        measurements = {measurement for _, measurement, _, _, _ in points}
        known = dict(self._store.field_types(self._bucket, measurements)) if points else {}
        return [point for point in points if self._fits(point, known)]

    def _fits(self, point: Entry, known: dict[tuple[str, str], FieldType]) -> bool:
        index, measurement, _, fields, _ = point
        given = {(measurement, field): TYPES[type(value)] for field, value in fields.items()}
        wrong = [key for key, kind in given.items() if known.get(key, kind) != kind]
        for key in wrong:
            message = f"the field {shown(key[1])} is of type {known[key]}, not {given[key]}"
            self._check.found(
                Detail(path=self._check.path(index, "fields", key[1]), message=message), first=key is wrong[0]
            )
        if wrong:
            self._conflicts += 1
            self._leave_out(point)
            return False
        known.update(given)
        return True

    def _leave_out(self, point: Entry) -> None:
        self._left_out += 1
        if len(self._measurements) < MAX_DETAILS:
            self._measurements[point[0]] = point[1]

    def _write(self, points: list[Entry]) -> None:
        """Store these. Where the store refuses some, and it cannot be seen which, each half is tried by itself."""
        pending = [points]
        while pending:
            part = pending.pop()
            refusal = self._sent(part) if part else None
            if refusal is None:
                continue
            good = self._explained(part, refusal)
            if len(good) < len(part):
                pending.append(good)
            elif len(part) == 1:
                self._leave_out(part[0])
                self._check.found(Detail(path=self._check.path(part[0][0]), message=_reason(refusal)))
            elif self._writes < MOST_WRITES:
                half = len(part) // 2
                pending += [part[half:], part[:half]]
            else:
                self._give_up(part, refusal)

    def _sent(self, points: list[Entry]) -> Refusal | None:
        """Why the store does not take all of them, if it does not."""
        if self._writes >= 2 * MOST_WRITES:
            raise Unavailable  # others go on to give fields new types
        self._writes += 1
        gathered = self._gathered(points)
        assert gathered is not None, "what was judged to be good is not"
        batch = self._store.batch(self._bucket)
        for column in gathered.columns:
            batch.add(*column)
        try:
            batch.write(self._left_out - self._told)
        except (TypeConflict, Unreadable) as refusal:
            return refusal
        except PartlyWritten as refusal:
            self._told = self._left_out
            return refusal
        self._told = self._left_out
        return None

    def _explained(self, points: list[Entry], refusal: Refusal) -> list[Entry]:
        """Those of which nothing can be seen that the store would refuse."""
        if isinstance(refusal, Unreadable):
            return self._readable(points, refusal)
        if isinstance(refusal, PartlyWritten):
            received = self._check.rules.received
            self._bucket, rules = self._reopen()
            self._check.rules = self._allowing_untimed(replace(rules, received=received))
            points = self._judged(points)
        return self._without_conflicts(points)

    def _readable(self, points: list[Entry], refusal: Unreadable) -> list[Entry]:
        check = Check(self._check.root, self._check.rules)
        named = {place(detail): detail for detail in unreadable(refusal, points, self._check.rules, check).details}
        good = []
        for point in points:
            if point[0] in named:
                self._leave_out(point)
                self._check.found(named[point[0]])
            else:
                good.append(point)
        return good

    def _give_up(self, points: list[Entry], refusal: Refusal) -> None:
        if isinstance(refusal, TypeConflict):  # so nothing of it was written
            raise Unavailable
        self._unsettled += len(points)
        reason = (
            f"{self._check.root[1:]} {points[0][0]} to {points[-1][0]} may not have been stored: {_reason(refusal)}"
        )
        self._check.found(Detail(path=self._check.root, message=reason))

    def _details(self) -> list[Detail]:
        return sorted(self._check.details(), key=place)

    def _message(self, total: int) -> str:
        return summary(self._left_out, total, self._details(), self._measurements, self._unsettled)


def _too_many(what: str) -> ServiceError:
    """Agents send the halves of a batch that is answered so."""
    return ServiceError(413, f"{what[0].upper()}{what[1:]}: send it in smaller ones")


def _reason(refusal: Refusal) -> str:
    match refusal:
        case PartlyWritten(why=why):
            return why
        case Unreadable(lines=[(_, str(reason)), *_]):
            return f"cannot be read by the store: {shown(reason)}"
    return "a field is stored with another type"
