"""What a batch holds of each series, and what is known of that series."""

import hashlib
from itertools import islice
from operator import lt
from sys import getsizeof

import msgspec

from heartguard.models.timeseries import FieldValue

from .copying import Strand
from .memory import Memory
from .store import Series
from .times import MAX_TIME, MIN_TIME


class Known:
    """A stored series; ``first`` to ``last`` is the time that points were written of by this process.

    ``epoch`` is the bucket's when that was learnt: in a later one the series may have been cleared away.
    """

    __slots__ = ("epoch", "first", "id", "kind", "last")

    def __init__(self, id_: int, kind: type, epoch: int) -> None:
        self.id = id_
        self.kind = kind
        self.epoch = epoch
        self.first = MAX_TIME
        self.last = MIN_TIME

    def wrote(self, first: int, last: int) -> None:
        self.first = min(self.first, first)
        self.last = max(self.last, last)


Key = tuple[str, bytes, str]
"""A bucket's id, a series' key and one of its fields."""
KnownSeries = Memory[Key, Known]


def weigh(key: Key) -> int:
    """Bytes of an entry of :data:`KnownSeries`."""
    return getsizeof(key[1]) + getsizeof(key[2]) + 400


class Slot:
    """The values that a batch holds of one series (of one field); the later of two at the same time wins."""

    __slots__ = ("field", "kind", "known", "series", "times", "values")

    def __init__(self, series: Series, field: str, kind: type) -> None:
        self.series = series
        self.field = field
        self.kind = kind
        self.known: Known | None = None
        self.times: list[int] = []
        self.values: list[FieldValue | int] = []

    def digest(self) -> bytes:
        """What the database knows the series by."""
        return hashlib.sha256(msgspec.json.encode((self.series.measurement, self.series.tags, self.field))).digest()

    @property
    def key(self) -> tuple[str, str]:
        return self.series.measurement, self.field

    def settle(self) -> None:
        """Order the values by time, one for each."""
        times = self.times
        if not all(map(lt, times, islice(times, 1, None))):
            rows = sorted(dict(zip(times, self.values, strict=True)).items())
            self.times = [time for time, _ in rows]
            self.values = [value for _, value in rows]

    def is_apart(self) -> bool:
        """Whether no point is known to lie among these."""
        known = self.known
        return known is None or self.times[0] > known.last or self.times[-1] < known.first

    @property
    def stored(self) -> Known:
        """The series, which is known once it is registered."""
        assert self.known is not None
        return self.known

    def strand(self) -> Strand:
        return Strand(self.kind, self.stored.id, self.times, self.values)
