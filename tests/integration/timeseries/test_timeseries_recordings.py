"""The imitation, and a real InfluxDB too, answer as the real one did whose answers were recorded."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from . import fake_influx, influxd, recordings
from .conftest import CHOICE
from .influx import IMITATION, REAL, Influx
from .influxd import Address
from .recordings import FILES, Exchange, Player

RIGHTS = {
    **dict.fromkeys([("api", 29), ("api", 67)], "none"),
    **dict.fromkeys([("api", number) for number in range(74, 78)], "read and write buckets"),
    **dict.fromkeys([("api", number) for number in range(78, 81)], "read buckets"),
}
"""Of the token that was sent, of which the recordings say nothing; ``all`` else."""
NOT_PACKED = {("api", 31)}
"""Nor that this body was not what its header said."""
AFTER = {("suite", 156): 157.5, ("suite", 213): 214.5}
"""Of what was asked at the same time: these were answered after those, though recorded before."""


def points(begin: int) -> bytes:
    return "\n".join(f"m,device=d{number % 10} f={number} {begin + number}" for number in range(5000)).encode()


NOT_RECORDED = {("suite", 190): points(2_000_000), ("suite", 192): points(3_000_000)}
"""Writes into the bucket that the next exchanges read; they were too long."""

BY_ID = dict.fromkeys(
    [("api", 12), ("api", 13), ("api", 14), ("api", 75)], "without org buckets are listed by their ids, which differ"
)
ARGUED: dict[str, dict[tuple[str, int], str]] = {
    REAL: {
        **BY_ID,
        **dict.fromkeys([("suite", 596), ("suite", 974)], "what was young enough for the retention is too old now"),
        **dict.fromkeys([("suite", 598), ("suite", 599), ("suite", 975)], "these points are not there, so"),
    },
    IMITATION: {
        ("api", 64): "it has no map, for which nobody asks",
        ("api", 65): "it has no packages to import, for which nobody asks",
        **BY_ID,
    },
}
"""Where an answer may differ, and why. Ids, times of making and the build are not compared at all."""

pytestmark = pytest.mark.skipif(recordings.folder() is None, reason="the recordings of InfluxDB are not in reach")


@contextmanager
def new_server(kind: str, folder: Path, port: int, recorded: list[Exchange]) -> Iterator[Address]:
    """One that holds nothing; the imitation lives at the time of the recording."""
    if kind == REAL:
        assert CHOICE.found
        with influxd.serving(CHOICE.found, folder, port) as address:
            yield address
    else:
        with fake_influx.serving(begun=recordings.made(recorded)) as address:
            yield address


def place_of(exchange: Exchange) -> tuple[str, int]:
    return exchange.name, exchange.number


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", [IMITATION, *([REAL] if CHOICE.found else [])])
def test_the_answers_are_those_that_were_recorded(
    kind: str, name: str, short_folder: Path, free_port: Callable[[], int], record_property: Callable[..., None]
) -> None:
    folder = recordings.folder()
    assert folder is not None
    recorded = recordings.exchanges(folder, name)
    differing: list[str] = []
    with ExitStack() as stack:
        address = stack.enter_context(new_server(kind, short_folder, free_port(), recorded))
        influx = Influx(address, kind)
        tokens = {
            "all": address.token,
            "none": None,
            "read buckets": stack.enter_context(influx.token_for_buckets("read")),
            "read and write buckets": stack.enter_context(influx.token_for_buckets("read", "write")),
        }
        player = Player(address)
        for exchange in sorted(recorded, key=lambda one: AFTER.get(place_of(one), one.number)):
            place = place_of(exchange)
            if lines := NOT_RECORDED.get(place):
                bucket = json.loads(exchange.request["text"])["extern"]["body"][0]["assignment"]["init"]["value"]
                influx.write(bucket, lines.decode(), precision="s")
            answer = player.play(exchange, tokens[RIGHTS.get(place, "all")], packed=place not in NOT_PACKED)
            found = "\n  ".join(player.differences(exchange, answer))
            if found and place not in ARGUED[kind]:
                request = exchange.request
                asked = f"{request['method']} {request['path']} {request['text'][:300]}"
                differing.append(f"{name} {exchange.number}: {asked}\n  {found}")
    assert not differing, f"{len(differing)} of {len(recorded)}:\n" + "\n".join(differing[:20])
    record_property("recordings", (name, len(recorded)))
    record_property("influx", kind)
