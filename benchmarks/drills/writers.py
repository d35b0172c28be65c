"""Writers who know of every batch whether it was acknowledged, and readers who look whether it is there."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from services.influx.src.times import format_time

from . import points
from .client import JSON, LINES, XML, Answer, Client
from .points import MEASUREMENT, SECOND, Batch
from .site import Person, Site

POINTS = 200
"""In a batch."""
BEGIN = 1_700_000_000 * SECOND
STEP = SECOND // 10_000
"""Between two points."""
YEAR = 365 * 86_400 * SECOND
YEARS = 4
"""Over which the batches of some writers are scattered."""
PAUSE, AGAIN = 0.02, 0.1
"""Seconds between two requests, and after one that failed."""
LATEST = 500
"""Readers ask for one of so many acknowledged batches."""
AWAY = {0, 502, 503, 504}
"""Statuses that say that something is away; 0 is no answer at all."""

Work = Callable[[threading.Event], None]


class Note(NamedTuple):
    """One request: what it was, when it began and how long it took (in seconds), and the status of its answer."""

    kind: str
    begun: float
    seconds: float
    status: int


class Notes:
    """All requests, and the answers that cannot be right. Thread-safe."""

    def __init__(self) -> None:
        self.all: list[Note] = []
        self.wrong: Counter[str] = Counter()

    def add(self, kind: str, answer: Answer, fine: Collection[int] = (200,)) -> None:
        self.all.append(Note(kind, time.monotonic() - answer.seconds, answer.seconds, answer.status))
        if answer.status not in (*AWAY, *fine):
            self.wrong[f"{kind}: {answer.status} {answer.body[:150]!r}"] += 1

    def statuses(self) -> "Counter[str]":
        return Counter(f"{note.kind} {note.status}" for note in self.all)


class Writer:
    """Writes batch after batch of its own series, in one format.

    One that ``repeats`` sends each until it is acknowledged, and scatters it over years: InfluxDB may keep a part of
    such a batch when it dies. The others send each once, of one moment: InfluxDB keeps all of it, or nothing.
    """

    def __init__(self, site: Site, person: Person, number: int, content: str, notes: Notes, *, repeats: bool) -> None:
        self.series = f"{number}"
        self.repeats = repeats
        self.acknowledged: list[int] = []
        """The numbers of batches."""
        self.uncertain: list[int] = []
        self.last = 0.0
        """When a batch was acknowledged last, by the monotonic clock."""
        self._content = content
        self._client = site.client(person)
        self._notes = notes

    def batch(self, number: int) -> Batch:
        numbers = range(number * POINTS, (number + 1) * POINTS)
        times = [BEGIN + one * STEP - (one % YEARS * YEAR if self.repeats else 0) for one in numbers]
        return Batch(self.series, times, list(map(float, numbers)))

    def work(self, over: threading.Event) -> None:
        number = 0
        while not over.wait(PAUSE):
            self._write(number, over)
            number += 1
        self._client.close()

    def _write(self, number: int, over: threading.Event) -> None:
        body = self.batch(number).body(self._content)
        while True:
            answer = self._client.ask("POST", "/timeseries/write", body, self._content)
            self._notes.add("write", answer)
            if answer.status == 200:
                self.acknowledged.append(number)
                self.last = time.monotonic()
                return
            if over.wait(AGAIN) or not self.repeats:
                self.uncertain.append(number)
                return

    def a_part(self) -> dict[int, float]:
        """Points of an acknowledged batch between which there are no others."""
        number = random.choice(self.acknowledged[-LATEST:])
        year = random.randrange(YEARS)
        return {
            at: value
            for at, value in self.batch(number).stored().items()
            if not self.repeats or int(value) % YEARS == year
        }

    def stored(self, client: Client) -> dict[int, float]:
        """All points of the series that there are."""
        length = (max([*self.acknowledged, *self.uncertain], default=0) + 1) * POINTS * STEP
        found: dict[int, float] = {}
        for year in range(YEARS if self.repeats else 1):
            start = BEGIN - year * YEAR
            found |= points.read(client, self.series, start, start + length)
        return found

    def judge(self, client: Client) -> "Counter[str]":
        """Count ``missing`` points (acknowledged), ``halved`` batches (sent once only) and ``foreign`` points."""
        found, faults = self.stored(client), Counter[str]()
        for number in self.acknowledged:
            faults["missing"] += sum(found.pop(at, None) != value for at, value in self.batch(number).stored().items())
        for number in self.uncertain:
            kept = sum(found.pop(at, None) == value for at, value in self.batch(number).stored().items())
            faults["halved"] += not self.repeats and kept not in (0, POINTS)
            faults["uncertain"] += 1
            faults["uncertain and kept"] += kept == POINTS
        faults["foreign"] += len(found)
        return faults


class Reader:
    """Asks for acknowledged points, which have to be there wherever there is an answer."""

    def __init__(self, site: Site, person: Person, writers: Sequence[Writer], notes: Notes) -> None:
        self._writers = writers
        self._client = site.client(person)
        self._notes = notes

    def work(self, over: threading.Event) -> None:
        pause = PAUSE
        while not over.wait(pause):
            writer = random.choice(self._writers)
            if writer.acknowledged:
                pause = PAUSE if self._ask(writer, writer.a_part()) else AGAIN
        self._client.close()

    def _ask(self, writer: Writer, part: dict[int, float]) -> bool:
        start, stop = min(part), max(part) + 1
        asked = {"range_start": format_time(start), "range_stop": format_time(stop), "tags": {"user_id": writer.series}}
        counts = random.random() < 0.5
        if counts:
            asked |= {"aggregate": "count", "window": "1s"}
        answer = self._client.query(measurement=MEASUREMENT, **asked)
        self._notes.add("query", answer)
        if answer.status != 200:
            return False
        results = answer.json["results"]
        number = sum(one["value"] for one in results) if counts else len(results)
        if number != len(part) or not (counts or {one["value"] for one in results} == set(part.values())):
            self._notes.wrong[f"{number} of {len(part)} acknowledged points"] += 1
        return True


def six_writers(site: Site, person: Person, notes: Notes) -> list[Writer]:
    """One for each format that repeats, and one that does not."""
    kinds = [(content, repeats) for content in (JSON, XML, LINES) for repeats in (True, False)]
    return [
        Writer(site, person, number, content, notes, repeats=repeats)
        for number, (content, repeats) in enumerate(kinds, 1)
    ]


def repeating(kind: str, ask: Callable[[], Answer], notes: Notes, fine: Collection[int] = (200,)) -> Work:
    """Ask the same again and again; ``fine`` are the statuses that may be."""

    def work(over: threading.Event) -> None:
        while not over.wait(PAUSE):
            notes.add(kind, ask(), fine)

    return work


@contextmanager
def at_work(works: Sequence[Work]) -> Iterator[None]:
    """All of them, until the block ends."""
    over = threading.Event()
    threads = [threading.Thread(target=work, args=(over,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(90)
