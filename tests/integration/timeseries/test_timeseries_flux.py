"""Every query that the service can ask InfluxDB is compiled and answered; and nothing sent changes one.

``HEARTGUARD_HOSTILE=10000`` tries that many hostile strings.
"""

import os
import random
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest

from heartguard.models.timeseries import Aggregate
from services.influx.src import influx_flux as flux
from services.influx.src.influx_answers import Found, read
from services.influx.src.influx_client import InfluxClient
from services.influx.src.influx_http import InfluxError
from services.influx.src.line_protocol import field_head, head
from services.influx.src.points import series_problems
from services.influx.src.store import Selection, Series
from services.influx.src.times import MAX_TIME, MIN_TIME

from .influx import Influx

HOSTILE = int(os.environ.get("HEARTGUARD_HOSTILE", "300"))

QUERIES = {
    "RAW": flux.RAW,
    "FIRST": flux.FIRST,
    "TYPES": flux.TYPES,
    "TYPES_OF_EACH": flux.TYPES_OF_EACH,
    "MEASUREMENTS": flux.MEASUREMENTS,
    **{f"{name}{convert}": flux.windows(name, convert=convert)
       for name in flux.FUNCTIONS for convert in ("", flux.TO_FLOAT)},
    **{f"whole {name}": flux.whole(name, flux.TO_FLOAT) for name in flux.WHOLE},
    "min, max": flux.windows("min", "max"),
    "min, max, count": flux.windows("min", "max", "count"),
    **{f"{name} without a limit": flux.windows(name, limited=False) for name in ("stddev", "count")},
}  # fmt: skip


@pytest.fixture(scope="module")
def bucket(influx: Influx, new_org: Callable[[], int]) -> str:
    """With two fields in two series, and with another measurement."""
    name = f"org_{new_org()}"
    influx.create(name)
    influx.write(name, *(f"m,t={tag} f={second},g={second} {second}" for tag in "vw" for second in range(4)))
    influx.write(name, "other f=9 1")
    return name


@pytest.fixture(scope="module")
def client(influx: Influx) -> Iterator[InfluxClient]:
    client = InfluxClient(influx.address.url, influx.address.token, influx.address.org)
    yield client
    client.close()


def selection(**changes: Any) -> Selection:
    plain: dict[str, Any] = {
        "measurement": "m", "start": 0, "stop": 100, "fields": ["f", "g"], "tags": {"t": "v"},
        "aggregate": None, "window": 60, "limit": 10,
    }  # fmt: skip
    return Selection(**{**plain, **changes})


def ask(client: InfluxClient, query: str, bucket: str, selection: Selection) -> list[Found]:
    return list(read(client.query(query, flux.extern(bucket, selection))))


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_every_query_is_answered(client: InfluxClient, bucket: str, query: str) -> None:
    everything = selection(start=MIN_TIME, stop=MAX_TIME + 1, window=10**18) if "Window" not in query else selection()
    for one in (selection(), selection(fields=None, tags={}), everything):
        found = ask(client, query, bucket, one)
        assert {row.field for row in found if row.field in "fg"} == ({"f", "g"} if "distinct" not in query else set())
    many = selection(fields=[f"f{number}" for number in range(256)], tags={f"t{number}": "v" for number in range(64)})
    assert ask(client, query, bucket, many) == [] or "distinct" in query


WRONG = [
    "x = nope()", f"{flux.RAW} |> limit(n: bucket)", f"{flux.RAW} |> sum(columns: 5)", f"{flux.RAW} |> first(",
    "from(buckets: bucket)",
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_refused(client: InfluxClient, bucket: str, wrong: str) -> None:
    """Else an answer would mean nothing."""
    with pytest.raises(InfluxError) as refused:
        ask(client, wrong, bucket, selection())
    assert (refused.value.status, refused.value.code) == (400, "invalid")


PIECES = [
    '"', "\\", "${", "}", "${bucket}", '") |> drop(columns: ["_value"])', "\n", "\r\n", "\t", "//", "|>", "=>", "(r)",
    "\\x22", "\\u0022", "';--", "\u2028", "é", "💓", "\ufeff", "{{", "%s", "]]>", "/.*/", " ", "or true", "r", "0",
]  # fmt: skip


def hostile(random: random.Random) -> str:
    pieces = random.choices(PIECES, k=random.randint(1, 6))
    if random.random() < 0.5:
        pieces.insert(random.randrange(len(pieces)), "".join(chr(random.randrange(32, 0x2FF)) for _ in range(4)))
    return "".join(pieces)


def test_no_string_finds_anything_but_itself(client: InfluxClient, influx: Influx, bucket: str) -> None:
    source = random.Random(20261124)
    stored = 0
    for number in range(HOSTILE):
        measurement, first, second, key, value = (hostile(source) for _ in range(5))
        sent = selection(measurement=measurement, fields=[first, second], tags={key: value}, stop=2 * HOSTILE)
        assert ask(client, flux.RAW, bucket, sent) == []
        series = Series(measurement, ((key, value),))
        if any(series_problems(series, [first])):
            continue
        stored += 1
        client.write(bucket, f"{head(measurement, series.tags)} {field_head(first)}={number} {number}".encode())
        (found,) = ask(client, flux.RAW, bucket, sent)
        assert found == ("_result", number, first, float(number), {key: value}, "float")
    assert stored > HOSTILE / 20
    assert len(ask(client, flux.RAW, bucket, selection(fields=None, tags={}))) == 16, "nothing else was touched"


def test_no_bucket_s_name_means_another(client: InfluxClient, bucket: str) -> None:
    source = random.Random(20261125)
    for _ in range(HOSTILE // 3):
        name = hostile(source)
        with pytest.raises(InfluxError) as refused:
            ask(client, flux.RAW, name, selection())
        assert refused.value.is_missing


def test_there_is_a_query_for_every_aggregate() -> None:
    assert {*get_args(Aggregate)} == {*flux.FUNCTIONS, "spread"}
