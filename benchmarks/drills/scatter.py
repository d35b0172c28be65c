"""One organization scatters points over all time and all the buckets it may have, beside others."""

import random
import time
from collections import Counter
from multiprocessing.synchronize import Event
from threading import Lock

from ..context import Context
from ..results import Row
from ..rig import together
from .attack import attack
from .client import LINES, Client
from .findings import answers, compared, files, lost, memory
from .influxd import Uses, watched
from .neighbours import Neighbourhood
from .site import DAY, Person, site

POINTS = 10_000
BEFORE = -10 * 365 * DAY
"""Seconds since the epoch: what is refused lies from there to 1970."""
YEARS = 365 * DAY
RETENTIONS = (0, 0, 10 * YEARS, 0, 60 * DAY, 0, 3600)
"""Seconds, in turns, of the buckets that the attacker makes."""
CONNECTIONS = 1
"""Of each of the three attackers."""


def batch(first: int, last: int, chance: random.Random) -> bytes:
    """Lines at any seconds from one to the other."""
    span = last - first
    times = [first + int(span * chance.random()) for _ in range(POINTS)]
    return "".join(f"scattered,origin=drill value={number} {at}\n" for number, at in enumerate(times)).encode()


def scatter(over: Event, port: int, people: list[Person], buckets: list[tuple[str, int]]) -> dict[str, int]:
    """All send at once, each to all buckets in turn, and every tenth batch has lines from before 1970."""
    answers: Counter[str] = Counter()
    lock = Lock()

    def send(person: Person, number: int) -> None:
        chance, client = random.Random(number), Client(port, person.token)
        sent = number
        while not over.is_set():
            bucket, retention = buckets[sent % len(buckets)]
            now = int(time.time())
            first = BEFORE if sent % 10 == 9 else now - retention + 60 if retention else 0
            answer = client.ask(
                "POST", f"/timeseries/write?precision=s&bucket={bucket}",
                batch(first, now + DAY - 60, chance), LINES,
            )  # fmt: skip
            sent += 1
            with lock:
                answers[f"early {answer.status}" if first == BEFORE else str(answer.status)] += 1
                answers["slowest, ms"] = max(answers["slowest, ms"], round(answer.seconds * 1000))
        client.close()

    together([lambda p=p, n=n: send(p, n) for n, p in enumerate(people)])  # type: ignore[misc]
    return dict(answers)


def make_buckets(client: Client, admin: Person) -> list[tuple[str, int]]:
    """As many as the organization may have, its default one among them; each with its retention."""
    made = [(admin.bucket, 0)]
    client.ask("GET", "/timeseries/buckets").expect(200)
    while True:
        name, retention = f"{admin.bucket}_{len(made)}", RETENTIONS[len(made) % len(RETENTIONS)]
        answer = client.post("/timeseries/buckets", {"bucket": name, "retention_seconds": retention})
        if answer.expect(201, 409).status == 409:
            return made
        made.append((name, retention))


def run(context: Context) -> list[Row]:
    organizations, seconds, every = context.choose((50, 180, 4.0), (8, 15, 2.0))
    with site(context.say) as one:
        neighbours = Neighbourhood(one, organizations, context.say)
        admin = one.sign_up()
        people = [admin, one.colleague(admin, "manager"), one.colleague(admin, "user")]
        client = one.client(admin)
        buckets = make_buckets(client, admin)
        client.close()
        context.say(f"quiet for {seconds} s")
        quiet = neighbours.measure(seconds, every)
        uses = Uses(one.influxd)
        context.say(f"under attack for {seconds} s, {len(buckets)} buckets")
        with (
            watched(uses),
            neighbours.at_work(every) as seen,
            attack(scatter, one.port, people * CONNECTIONS, buckets) as attacked,
        ):
            time.sleep(seconds)
        uses.note("after")
        missing = neighbours.missing()
        stopping, starting = one.influxd.restart()
        uses.note("started again")
        missing += neighbours.missing()
    return [
        *compared("scatter", quiet, seen),
        files("scatter", uses),
        memory("scatter", uses),
        Row(
            benchmark="scatter", what="influxd restarts in", unit="s", value=round(stopping + starting, 1),
            details={"to stop": round(stopping, 1), "to healthy": round(starting, 1)},
        ),
        lost("scatter", missing, neighbours.written()),
        answers("scatter", attacked.found),
    ]  # fmt: skip
