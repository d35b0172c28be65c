"""Buckets are dropped under those who read them."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from services.influx.src.times import format_time

from ..context import Broken, Context
from ..results import Row
from .client import Answer
from .findings import NONE, files, memory
from .influxd import Uses, watched
from .points import MEASUREMENT, SECOND, Batch
from .site import Person, Site, site

BEGIN = 1_700_000_000
FILL = 10_000
READERS = 8
QUESTIONS: tuple[dict[str, object], ...] = (
    {"aggregate": "mean", "window": "10s"},
    {"aggregate": "stddev", "window": "1m"},
    {"aggregate": "median", "window": "1m"},
    {"aggregate": "count", "window": "3650d"},
    {"aggregate": "spread", "window": "1h"},
    {},
    {"aggregate": "max", "window": "1s"},
    {"aggregate": "last", "window": "3650d"},
)
"""What each of the readers asks, again and again."""
LIMIT = 50_000
SETTINGS = {
    "TIMESERIES_SWEEP_SECONDS": "2",
    "TIMESERIES_MAX_QUERIES": str(READERS),
    "TIMESERIES_THREADS": str(2 * READERS),
}
"""Else eight readers of one organization would wait for each other, and none would read when the bucket is dropped."""
REMOVED_SECONDS = 120


@dataclass
class Seen:
    """What all drops brought. ``late`` counts answers with points to who asked after the bucket was dropped."""

    good: Counter[str] = field(default_factory=Counter)
    odd: Counter[str] = field(default_factory=Counter)
    late: int = 0
    put_off: int = 0
    seconds: list[float] = field(default_factory=list)


class Drop:
    """One bucket, its readers, and its end."""

    def __init__(self, site: Site, person: Person, points: int, seen: Seen) -> None:
        self._site = site
        self._person = person
        self._points = points
        self._seen = seen
        self._bucket = f"{person.bucket}_drill"
        self._lock = threading.Lock()
        self._dropping = threading.Event()
        self._dropped = threading.Event()
        self._asked = threading.Semaphore(0)

    def fill(self) -> None:
        client = self._site.client(self._person)
        client.post("/timeseries/buckets", {"bucket": self._bucket}).expect(201)
        stored = client.query(bucket=self._bucket, measurement=MEASUREMENT, range_start=format_time(0)).expect(200)
        if stored.json["count"]:
            raise Broken(f"a new bucket has {stored.json['count']} points")
        for first in range(BEGIN, BEGIN + self._points, FILL):
            seconds = range(first, min(first + FILL, BEGIN + self._points))
            lines = Batch("1", [at * SECOND for at in seconds], [float(at % 1000) for at in seconds]).lines()
            client.write(lines, self._bucket).expect(200)
        client.close()

    def run(self, wait: float) -> None:
        """Let all read, and drop it after that time."""
        threads = [threading.Thread(target=self._read, args=(asked,), daemon=True) for asked in QUESTIONS[:READERS]]
        for thread in threads:
            thread.start()
        for _ in threads:
            self._asked.acquire()
        time.sleep(wait)
        client = self._site.client(self._person)
        begun = time.monotonic()
        self._dropping.set()
        try:
            while (answer := client.ask("DELETE", f"/timeseries/buckets/{self._bucket}")).status == 429:
                self._seen.put_off += 1
                time.sleep(min(answer.retry_after, 3))
                begun = time.monotonic()
            answer.expect(204)
            self._seen.seconds.append(time.monotonic() - begun)
        finally:
            self._dropped.set()
            for thread in threads:
                thread.join(90)
            client.close()

    def _read(self, asked: dict[str, object]) -> None:
        client = self._site.client(self._person)
        begin, end = format_time(BEGIN * SECOND), format_time((BEGIN + self._points) * SECOND)
        begun = False
        while True:
            too_late = self._dropped.is_set()
            if not begun:
                begun = True
                self._asked.release()
            answer = client.query(
                bucket=self._bucket, measurement=MEASUREMENT, range_start=begin, range_stop=end, limit=LIMIT, **asked
            )
            self._note(answer, asked, too_late=too_late)
            if answer.status == 404 or too_late:
                return client.close()

    def _note(self, answer: Answer, asked: dict[str, object], *, too_late: bool) -> None:
        what, is_good = str(answer.status), answer.status in (200, 404)
        if answer.status == 200:
            results = answer.json["results"]
            if not results:
                what, is_good = "200, and empty", False
            elif asked.get("aggregate") == "count" and results[0]["value"] != self._points:
                what, is_good = f"200, and {results[0]['value']} of {self._points} points", False
        elif answer.status == 404 and not self._dropping.is_set():
            what, is_good = "404 before the drop", False
        elif not is_good:
            what = f"{answer.status}: {answer.body[:120]!r}"
        with self._lock:
            (self._seen.good if is_good else self._seen.odd)[what] += 1
            self._seen.late += too_late and answer.status == 200


def run(context: Context) -> list[Row]:
    drops, organizations, points = context.choose((200, 10, 240_000), (10, 2, 60_000))
    seen = Seen()
    with site(context.say, **SETTINGS) as one:
        admins = [one.sign_up() for _ in range(organizations)]
        uses = Uses(one.influxd)
        with watched(uses):
            for number in range(drops):
                drop = Drop(one, admins[number % organizations], points, seen)
                drop.fill()
                drop.run(wait=0.05 * (number % 20))
                if not uses.same_process:
                    raise Broken(f"influxd ended at drop {number + 1}: {one.influxd.said()}")
                if number % 10 == 9:
                    context.say(f"{number + 1} of {drops} drops: {dict(seen.good)}, {dict(seen.odd)}")
        context.say("waiting until all are removed")
        left = removed(one)
        uses.note("after")
        alive = uses.same_process
    return rows(drops, alive, seen, left, uses)


def removed(one: Site) -> int:
    """How many dropped buckets are still there when they should have been removed."""
    end = time.monotonic() + REMOVED_SECONDS
    while left := sum(name.startswith("heartguard_dropped_") for name in one.influxd.buckets()):
        if time.monotonic() > end:
            break
        time.sleep(1)
    return left


def rows(drops: int, alive: bool, seen: Seen, left: int, uses: Uses) -> list[Row]:
    odd = "; ".join(f"{count} × {what}" for what, count in seen.odd.most_common(5))
    took = {"drops": float(drops), "slowest drop s": round(max(seen.seconds), 2), "drops put off": float(seen.put_off)}
    return [
        Row(benchmark="drops", what="crashes of influxd", unit="", value=0 if alive else 1, target=NONE, details=took),
        Row(
            benchmark="drops", what="answers but whole 200 and 404", unit="", value=seen.odd.total(), target=NONE,
            details={name: float(count) for name, count in seen.good.items()}, note=odd,
        ),
        Row(benchmark="drops", what="answers with points after the drop", unit="", value=seen.late, target=NONE),
        Row(benchmark="drops", what="dropped buckets that are not removed", unit="", value=left, target=NONE),
        memory("drops", uses),
        files("drops", uses),
    ]  # fmt: skip
