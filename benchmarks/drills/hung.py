"""InfluxDB gets no processor time for ten seconds while all kinds of requests come in."""

import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import cycle

from heartguard.services import SERVICES

from ..context import Context
from ..results import Row, Target
from . import heavy
from .client import Answer, Client
from .findings import NONE
from .site import DAY, Site, site
from .writers import POINTS, Note, Notes, Reader, Work, at_work, repeating, six_writers

HANG, BEFORE, AFTER = 10.0, 4.0, 12.0
"""Seconds."""
WELL_AGAIN = 3.0
"""Seconds after the hang from which on nothing may fail any more."""
PATIENCE = Target("≤", 5)
ORGANIZATIONS = 16
"""That ask for windows all the time, so that more requests come in than the service has threads."""
MAY_REFUSE = (200, 422, 429)
"""A costly query may be too much, or one too many."""
Hang = tuple[float, float]
"""When it began and when it ended, by the monotonic clock."""


def costly(one: Site, points: int, notes: Notes) -> Work:
    """Queries that take a while, so that one is with InfluxDB when it stops."""
    person = one.sign_up()
    client = one.client(person)
    heavy.fill(client, person, points)
    questions = cycle(heavy.questions(points))
    return repeating("costly query", lambda: client.query(**next(questions)), notes, MAY_REFUSE)


def windows(one: Site, notes: Notes) -> Work:
    """24 h in 1-minute means."""
    person = one.sign_up()
    client = one.client(person)
    heavy.fill(client, person, DAY)
    asked = {**heavy.questions(DAY)[0], "aggregate": "mean", "window": "1m", "limit": 2000}
    return repeating("windows query", lambda: client.query(**asked), notes)


def others(one: Site, notes: Notes) -> Iterator[Work]:
    """Lists of buckets, a new bucket each time, and whether the service is ready, through the gateway and past it."""
    admin = one.sign_up()
    direct = Client(one.stack.port(SERVICES["timeseries"]))

    def get(client: Client, path: str) -> Answer:
        return client.ask("GET", path)

    yield repeating("list of buckets", partial(get, one.client(admin), "/timeseries/buckets"), notes)
    yield repeating("readiness by gateway", partial(get, one.client(admin), "/timeseries/ready"), notes)
    yield repeating("readiness", partial(get, direct, "/timeseries/ready"), notes)
    drops = one.client(one.sign_up())

    def make_and_drop() -> Answer:
        name = f"org_{drops_org}_drill"
        made = drops.post("/timeseries/buckets", {"bucket": name})
        return made if made.status != 201 else drops.ask("DELETE", f"/timeseries/buckets/{name}")

    drops_org = drops.ask("GET", "/auth/profile").expect(200).json["org_id"]
    yield repeating("bucket made and dropped", make_and_drop, notes, (204, 404, 409, 429))


def hang(one: Site) -> Hang:
    time.sleep(BEFORE)
    with one.influxd.hung():
        begun = time.monotonic()
        time.sleep(HANG)
    ended = time.monotonic()
    time.sleep(AFTER)
    return begun, ended


def run(context: Context) -> list[Row]:
    rounds, points = context.choose((5, 1_000_000), (1, 200_000))
    notes = Notes()
    with site(context.say) as one:
        person = one.sign_up()
        writers = six_writers(one, person, notes)
        readers = [Reader(one, person, writers, notes) for _ in range(2)]
        context.say("filling in")
        works: list[Work] = [*(writer.work for writer in writers), *(reader.work for reader in readers)]
        works += [costly(one, points, notes), *others(one, notes)]
        works += [windows(one, notes) for _ in range(ORGANIZATIONS)]
        with at_work(works):
            hangs = []
            for number in range(rounds):
                context.say(f"hanging for {HANG:g} s, {number + 1} of {rounds}")
                hangs.append(hang(one))
        context.say("reading everything back")
        faults, client = Counter[str](), one.client(person)
        for writer in writers:
            faults += writer.judge(client)
        client.close()
    return [
        *(waits(kind, notes, hangs) for kind in sorted({note.kind for note in notes.all})),
        well_again(notes, hangs),
        Row(
            benchmark="hung", what="acknowledged points that are missing", unit="", value=faults["missing"],
            target=NONE, details={"acknowledged": POINTS * sum(len(writer.acknowledged) for writer in writers)},
        ),
        Row(benchmark="hung", what="batches of which a part is stored", unit="", value=faults["halved"], target=NONE),
        Row(
            benchmark="hung", what="answers that cannot be right", unit="", value=notes.wrong.total(), target=NONE,
            note="; ".join(f"{count} × {what}" for what, count in notes.wrong.most_common(5)),
        ),
    ]  # fmt: skip


def waits(kind: str, notes: Notes, hangs: list[Hang]) -> Row:
    """How long requests of a kind waited that came in the hang; or, where they were with InfluxDB, from then on."""
    statuses, longest = Counter[str](), {"came in the hang": 0.0, "were under way": 0.0}
    for begun, ended in hangs:
        for note in notes.all:
            if note.kind == kind and note.begun < ended and end_of(note) > begun:
                which = "came in the hang" if note.begun >= begun else "were under way"
                longest[which] = max(longest[which], end_of(note) - max(note.begun, begun))
                statuses[f"status {note.status}"] += 1
    return Row(
        benchmark="hung", what=f"{kind}, longest wait", unit="s", value=round(max(longest.values()), 2),
        target=PATIENCE, details={**{name: round(wait, 2) for name, wait in longest.items()}, **statuses},
    )  # fmt: skip


def well_again(notes: Notes, hangs: list[Hang]) -> Row:
    """What failed although InfluxDB had been there again for a while."""
    late = Counter[str]()
    for _, ended in hangs:
        for note in notes.all:
            is_late = ended + WELL_AGAIN <= note.begun < ended + AFTER
            if is_late and (note.status == 0 or note.status >= 500):
                late[f"{note.kind} {note.status}"] += 1
    return Row(
        benchmark="hung", what=f"requests that failed {WELL_AGAIN:g} s after the hang and later", unit="",
        value=late.total(), target=NONE, details=dict(late),
    )  # fmt: skip


def end_of(note: Note) -> float:
    return note.begun + note.seconds
