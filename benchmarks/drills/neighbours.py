"""Honest organizations: each writes a batch a second and reads now and then. How long they wait is what is measured."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..context import Broken
from ..rig import percentile
from . import points
from .client import JSON, LINES, Client
from .points import SECOND, Batch
from .site import DAY, Person, Site

POINTS = 60
"""In a batch, which is of one second."""
WRITES, WINDOWS, RAW = "writes", "24 h in 1-minute means", "1,000 raw points"
KINDS = (WRITES, WINDOWS, RAW)
FILL = 10_000


@dataclass
class Seen:
    """What one phase brought: seconds of the good answers by kind, and what was no good answer."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    failures: Counter[str] = field(default_factory=Counter)

    def figures(self, kind: str) -> dict[str, float]:
        """In milliseconds."""
        times = [1000 * one for one in self.seconds[kind]]
        return {
            "p50": percentile(times, 50), "p95": percentile(times, 95), "max": max(times, default=0.0),
            "requests": float(len(times)),
        }  # fmt: skip


class Neighbour:
    """An organization with its admin, and what it was told is stored."""

    def __init__(self, site: Site, number: int) -> None:
        self.person: Person = site.sign_up()
        self.begin = 0
        self.written: dict[int, float] = {}
        self._site = site
        self._number = number
        self._content = JSON if number % 2 else LINES
        self._reads = number

    def fill(self, now: int) -> None:
        """A day at 1 Hz, up to ``now`` (in seconds)."""
        self.begin = now * SECOND
        client = self._site.client(self.person)
        for first in range(now - DAY, now, FILL):
            seconds = range(first, min(first + FILL, now))
            one = Batch(self.person.user_id, [at * SECOND for at in seconds], [60.0 + at % 40 for at in seconds])
            client.write(one.lines()).expect(200)
        client.close()

    def write(self, client: Client, seen: Seen) -> None:
        now = time.time_ns() // SECOND * SECOND
        times = [now + number * SECOND // POINTS for number in range(POINTS)]
        batch = Batch(self.person.user_id, times, [float(at % 1_000_003) for at in times])
        answer = client.ask("POST", "/timeseries/write", batch.body(self._content), self._content)
        if answer.status == 200:
            self.written |= batch.stored()
            seen.seconds[WRITES].append(answer.seconds)
        else:
            seen.failures[f"{WRITES}: {answer.status} {answer.body[:150]!r}"] += 1

    def read(self, client: Client, seen: Seen) -> None:
        self._reads += 1
        common = {"measurement": points.MEASUREMENT, "tags": {"user_id": self.person.user_id}}
        if self._reads % 2:
            kind, least = WINDOWS, 1300
            answer = client.query(**common, range_start="-24h", aggregate="mean", window="1m", limit=2000)
        else:
            kind, least = RAW, 1000
            answer = client.query(**common, range_start="-1h", limit=1000)
        if answer.status == 200 and answer.json["count"] >= least:
            seen.seconds[kind].append(answer.seconds)
        else:
            seen.failures[f"{kind}: {answer.status} {answer.body[:150]!r}"] += 1

    def missing(self) -> int:
        """How many acknowledged points are not there, or have another value."""
        client = self._site.client(self.person)
        end = max(self.written, default=self.begin) + 1
        found = points.read(client, self.person.user_id, self.begin, end)
        client.close()
        return sum(found.get(at) != value for at, value in self.written.items())


Work = Callable[[Neighbour, Client, Seen], None]


class Neighbourhood:
    """All honest organizations of a site."""

    def __init__(self, site: Site, number: int, say: Callable[[str], None]) -> None:
        say(f"{number} organizations sign up")
        self.all = [Neighbour(site, one) for one in range(number)]
        now = int(time.time())
        for done, neighbour in enumerate(self.all):
            if done % 10 == 0:
                say(f"a day at 1 Hz for each of them, {done} of {number}")
            neighbour.fill(now)
        self._site = site

    @contextmanager
    def at_work(self, read_every: float) -> Iterator[Seen]:
        """They write each second, and read every so many, until the block ends."""
        seen, over = Seen(), threading.Event()
        threads = [
            threading.Thread(target=self._regularly, args=(one, work, every, begin, seen, over), daemon=True)
            for begin, one in enumerate(self.all)
            for work, every in ((Neighbour.write, 1.0), (Neighbour.read, read_every))
        ]
        for thread in threads:
            thread.start()
        try:
            yield seen
        finally:
            over.set()
            for thread in threads:
                thread.join(90)

    def _regularly(
        self, neighbour: Neighbour, work: Work, every: float, number: int, seen: Seen, over: threading.Event
    ) -> None:
        """Who is late begins at once, and does not make up for what was left out."""
        client = self._site.client(neighbour.person)
        due = time.monotonic() + every * number / len(self.all)
        while not over.wait(max(due - time.monotonic(), 0)):
            work(neighbour, client, seen)
            due = max(due + every, time.monotonic())
        client.close()

    def missing(self) -> int:
        return sum(one.missing() for one in self.all)

    def written(self) -> int:
        return sum(len(one.written) for one in self.all)

    def measure(self, seconds: float, read_every: float) -> Seen:
        """With nobody else at work."""
        with self.at_work(read_every) as seen:
            time.sleep(seconds)
        if seen.failures:
            raise Broken(f"failed without an attack: {dict(seen.failures)}")
        return seen
