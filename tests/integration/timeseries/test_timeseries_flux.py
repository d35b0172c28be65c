"""Every query that the service can ask InfluxDB, judged by InfluxDB's own compiler; and nothing sent changes one.

``HEARTGUARD_HOSTILE=10000`` tries that many hostile strings.
"""

import os
import random
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pytest

from heartguard.models.timeseries import Aggregate
from services.influx.src import influx_flux as flux
from services.influx.src.store import Selection
from services.influx.src.times import MAX_TIME, MIN_TIME

from . import fake_flux
from .references import FluxCompiler, flux_compiler

HOSTILE = int(os.environ.get("HEARTGUARD_HOSTILE", "300"))

QUERIES = [
    flux.RAW,
    flux.TYPES,
    flux.TYPES_OF_EACH,
    flux.MEASUREMENTS,
    *(build(name, convert=convert) for build in (flux.windows, flux.whole) for name in flux.FUNCTIONS
      for convert in ("", flux.TO_FLOAT)),
    *(build(*names) for build in (flux.windows, flux.whole) for names in (("min", "max"), ("min", "max", "count"))),
    *(flux.windows(name, limited=False) for name in ("stddev", "count")),
]  # fmt: skip


@pytest.fixture(scope="module")
def compiler(pytestconfig: pytest.Config) -> Iterator[FluxCompiler]:
    assert pytestconfig.cache is not None
    with flux_compiler(pytestconfig.cache.mkdir("flux")) as compiler:
        yield compiler


def selection(**changes: Any) -> Selection:
    plain: dict[str, Any] = {
        "measurement": "m", "start": MIN_TIME, "stop": MAX_TIME + 1, "fields": ["f", "g"], "tags": {"t": "v"},
        "aggregate": None, "window": 60, "limit": 10,
    }  # fmt: skip
    return Selection(**{**plain, **changes})


def bare(tree: Any) -> Any:
    """A syntax tree without places, and without what the compiler leaves out where it is understood."""
    if isinstance(tree, Mapping):
        dropped = {"location", "metadata", "path"}
        found = {key: bare(value) for key, value in tree.items() if key not in dropped}
        if found.get("type") in ("Identifier", "CallExpression"):
            del found["type"]
        if found.get("type") == "DateTimeLiteral":
            found["value"] = found["value"].replace("+00:00", "Z")
        return found
    return [bare(item) for item in tree] if isinstance(tree, list) else tree


@pytest.mark.parametrize("query", QUERIES)
def test_the_compiler_accepts_every_query(compiler: FluxCompiler, query: str) -> None:
    for one in (selection(), selection(fields=None, tags={}), selection(fields=[f"f{n}" for n in range(256)])):
        found = compiler.judge(query, flux.extern("org_7", one))
        assert found["valid"]
        assert bare(found["ast"]["files"][0]) == bare(flux.extern("org_7", one))


@pytest.mark.parametrize("query", QUERIES)
def test_the_small_influxdb_reads_queries_as_the_compiler_does(compiler: FluxCompiler, query: str) -> None:
    found = compiler.judge(query, flux.extern("org_7", selection()))
    assert bare(found["query"]["body"]) == bare(fake_flux.parse(query))


WRONG = [
    "x = nope()", f"{flux.RAW} |> limit(n: bucket)", f"{flux.RAW} |> sum(columns: 5)", f"{flux.RAW} |> first(",
    "from(buckets: bucket)",
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_the_compiler_refuses_what_is_wrong(pytestconfig: pytest.Config, wrong: str) -> None:
    """Else its approval would mean nothing. It may break over it."""
    assert pytestconfig.cache is not None
    with flux_compiler(pytestconfig.cache.mkdir("flux")) as compiler:
        assert not compiler.judge(wrong, flux.extern("org_7", selection()))["valid"]


PIECES = [
    '"', "\\", "${", "}", "${bucket}", '") |> drop(columns: ["_value"])', "\n", "\r\n", "\t", "//", "|>", "=>", "(r)",
    "\\x22", "\\u0022", "';--", "\u2028", "é", "💓", "\ufeff", "{{", "%s", "]]>", "/.*/", " ", "or true", "r", "0",
]  # fmt: skip


def hostile(random: random.Random) -> str:
    pieces = random.choices(PIECES, k=random.randint(1, 6))
    if random.random() < 0.5:
        pieces.insert(random.randrange(len(pieces)), "".join(chr(random.randrange(32, 0x2FF)) for _ in range(4)))
    return "".join(pieces)


def masked(tree: Any) -> Any:
    """Its structure alone: strings are all the same."""
    if isinstance(tree, Mapping):
        if tree.get("type") == "StringLiteral":
            return "string"
        return {key: masked(value) for key, value in tree.items()}
    return [masked(item) for item in tree] if isinstance(tree, list) else tree


def strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, Mapping):
        if tree.get("type") == "StringLiteral":
            yield tree["value"]
        for value in tree.values():
            yield from strings(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from strings(item)


def test_no_string_changes_the_structure_of_a_query(compiler: FluxCompiler) -> None:
    """The trees are those that the compiler has read from what is sent."""
    plain = bare(compiler.judge(flux.RAW, flux.extern("org_7", selection()))["ast"])
    source = random.Random(20261124)
    for _ in range(HOSTILE):
        bucket, measurement, first, second, key, value = (hostile(source) for _ in range(6))
        sent = selection(measurement=measurement, fields=[first, second], tags={key: value})
        found = compiler.judge(flux.RAW, flux.extern(bucket, sent))
        assert found["valid"]
        tree = bare(found["ast"])
        assert masked(tree) == masked(plain)
        read = list(strings(tree["files"][0]))
        assert read == [bucket, "_measurement", measurement, "_field", first, "_field", second, key, value]


def test_there_is_a_query_for_every_aggregate() -> None:
    assert {*get_args(Aggregate)} == {*flux.FUNCTIONS, "spread"}
