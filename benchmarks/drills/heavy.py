"""One organization asks the costliest queries there are, beside others."""

import random
import threading
import time
from collections import Counter
from multiprocessing.synchronize import Event

from heartguard.models.timeseries import MAX_RESULTS
from services.influx.src.times import format_time

from ..context import Broken, Context
from ..results import Row
from ..rig import together
from .attack import attack
from .client import Client
from .findings import answers, compared, files, lost, memory
from .influxd import Uses, watched
from .neighbours import Neighbourhood
from .points import MEASUREMENT, SECOND, Batch
from .site import Person, site

POINTS = 1_000_000
BEGIN = 1_600_000_000
"""Seconds since the epoch."""
AT_ONCE, QUERIES = 32, 100
OF_SECONDS = ("stddev", "mean", "median", "raw")
AGGREGATES = ("mean", "median", "max", "min", "count", "sum", "first", "last", "stddev", "spread")
OF_ALL = 24
"""So many of the queries ask for an aggregate of everything, the others for as many rows as an answer may have."""
PATIENCE = 20
"""How often each is sent again where it was put off (429)."""


def questions(points: int) -> list[dict[str, object]]:
    common: dict[str, object] = {
        "measurement": MEASUREMENT,
        "range_start": format_time(BEGIN * SECOND),
        "range_stop": format_time((BEGIN + points) * SECOND),
    }
    aggregates = [{"aggregate": AGGREGATES[number % len(AGGREGATES)], "window": "3650d"} for number in range(OF_ALL)]
    kinds = [OF_SECONDS[number % len(OF_SECONDS)] for number in range(QUERIES - OF_ALL)]
    windows = [{} if kind == "raw" else {"aggregate": kind, "window": "1s"} for kind in kinds]
    found = [{**common, **asked, "limit": MAX_RESULTS} for asked in [*windows, *aggregates]]
    random.Random(1).shuffle(found)
    return found


def ask(over: Event, port: int, person: Person, points: int, waits: bool) -> dict[str, int]:
    """All questions, so many at once; what is put off is sent again, when told to where the attacker ``waits``."""
    answers: Counter[str] = Counter()
    lock, left = threading.Lock(), questions(points)
    begun = time.monotonic()

    def work() -> None:
        client = Client(port, person.token)
        while True:
            with lock:
                if not left or over.is_set():
                    return client.close()
                asked = left.pop()
            for _ in range(PATIENCE):
                answer = client.query(**asked)
                with lock:
                    answers[str(answer.status)] += 1
                    answers["slowest, ms"] = max(answers["slowest, ms"], round(answer.seconds * 1000))
                if answer.status != 429 or over.is_set():
                    break
                time.sleep(answer.retry_after if waits else 0)

    together([work] * AT_ONCE)
    answers["seconds"] = round(time.monotonic() - begun)
    over.wait()
    return dict(answers)


def fill(client: Client, person: Person, points: int) -> None:
    for first in range(BEGIN, BEGIN + points, 10_000):
        seconds = range(first, min(first + 10_000, BEGIN + points))
        values = [60 + at * 7 % 400 / 10 for at in seconds]
        client.write(Batch(person.user_id, [at * SECOND for at in seconds], values).lines()).expect(200)


def run(context: Context) -> list[Row]:
    organizations, seconds, every, points = context.choose((50, 120, 4.0, POINTS), (8, 15, 2.0, 200_000))
    with site(context.say) as one:
        neighbours = Neighbourhood(one, organizations, context.say)
        attacker = one.sign_up()
        context.say(f"{points:,} points of the attacker")
        client = one.client(attacker)
        fill(client, attacker, points)
        client.close()
        context.say(f"quiet for {seconds} s")
        quiet = neighbours.measure(seconds, every)
        uses, rows, waiting = Uses(one.influxd), [], {True: "", False: " (does not wait)"}
        for waits, note in waiting.items():
            context.say(f"under attack for {seconds} s{note}")
            with (
                watched(uses),
                neighbours.at_work(every) as seen,
                attack(ask, one.port, attacker, points, waits) as attacked,
            ):
                time.sleep(seconds)
            uses.note(f"after{note}")
            rows += [*compared(f"heavy{note}", quiet, seen), answers(f"heavy{note}", attacked.found)]
        missing = neighbours.missing()
        if not uses.same_process:
            raise Broken(f"influxd ended: {one.influxd.said()}")
    return [*rows, memory("heavy", uses), files("heavy", uses), lost("heavy", missing, neighbours.written())]
