"""influxd and the time-series service are killed again and again, in turns, under writers and readers."""

import random
import time
from collections import Counter
from collections.abc import Sequence

from heartguard.local.server import TooSlow, wait_until

from ..context import Broken, Context
from ..results import Row
from ..rig import percentile
from .findings import NONE
from .site import Site, site
from .writers import POINTS, Notes, Reader, Writer, at_work, six_writers

READERS = 3
BACK_SECONDS = 90.0
WITHIN = 0.4
"""The longest time in seconds between all working again and the next kill."""
VICTIMS = ("influxd", "timeseries")


def kill(one: Site, victim: str) -> None:
    """The supervisor starts it again."""
    if victim == "influxd":
        one.influxd.kill()
    else:
        one.kill_service(victim)


def back(one: Site, writers: Sequence[Writer], since: float) -> float:
    """Wait until everybody was acknowledged a batch; after how many seconds."""
    try:
        wait_until(lambda: all(writer.last > since for writer in writers), "not all writers went on", BACK_SECONDS)
    except TooSlow as problem:
        raise Broken(f"{problem}; influxd's log ends: {one.influxd.said()[-500:]}") from None
    return time.monotonic() - since


def run(context: Context) -> list[Row]:
    kills = context.choose(200, 10)
    notes, outages = Notes(), {victim: list[float]() for victim in VICTIMS}
    with site(context.say) as one:
        person = one.sign_up()
        writers = six_writers(one, person, notes)
        readers = [Reader(one, person, writers, notes) for _ in range(READERS)]
        with at_work([*(writer.work for writer in writers), *(reader.work for reader in readers)]):
            back(one, writers, time.monotonic())
            for number in range(kills):
                victim = VICTIMS[number % len(VICTIMS)]
                time.sleep(random.random() * WITHIN)
                since = time.monotonic()
                kill(one, victim)
                outages[victim].append(back(one, writers, since))
                if number % 10 == 9:
                    batches = sum(len(writer.acknowledged) for writer in writers)
                    context.say(f"{number + 1} of {kills} kills, {batches} batches, {dict(notes.wrong)}")
        context.say("reading everything back")
        faults, client = Counter[str](), one.client(person)
        for writer in writers:
            faults += writer.judge(client)
        client.close()
    return rows(kills, outages, notes, writers, faults)


def rows(
    kills: int, outages: dict[str, list[float]], notes: Notes, writers: Sequence[Writer], faults: "Counter[str]"
) -> list[Row]:
    batches = sum(len(writer.acknowledged) for writer in writers)
    uncertain = {name: float(faults[name]) for name in ("uncertain", "uncertain and kept")}
    wrong = "; ".join(f"{count} × {what}" for what, count in notes.wrong.most_common(5))
    found = [
        Row(
            benchmark="kills", what="acknowledged points that are missing", unit="", value=faults["missing"],
            target=NONE, details={"kills": kills, "acknowledged": batches * POINTS},
        ),
        Row(
            benchmark="kills", what="batches of which a part is stored", unit="", value=faults["halved"], target=NONE,
            details={"acknowledged": batches, **uncertain},
        ),
        Row(benchmark="kills", what="points that nobody has written", unit="", value=faults["foreign"], target=NONE),
        Row(
            benchmark="kills", what="answers that cannot be right", unit="", value=notes.wrong.total(), target=NONE,
            details={name: float(count) for name, count in sorted(notes.statuses().items())}, note=wrong,
        ),
    ]  # fmt: skip
    return found + [
        Row(
            benchmark="kills", what=f"all write again after a kill of {victim}, median", unit="s",
            value=round(percentile(times, 50), 2), details={"slowest": round(max(times), 2)},
        )
        for victim, times in outages.items()
    ]  # fmt: skip
