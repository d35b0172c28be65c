"""The fast way through a batch and the thorough one come to the same verdict, and lose no point."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from heartguard.errors import ServiceError
from heartguard.models.timeseries import WriteRequest
from services.influx.src.check import Check
from services.influx.src.gathering import Points, gather
from services.influx.src.heads import Heads
from services.influx.src.points import Rules
from services.influx.src.store import Series
from services.influx.src.times import MAX_TIME, SECOND
from services.influx.src.timeseries import entries

names = st.sampled_from(["a", "b", "user_id", "time", "_x", "é", "x\\", "a\x01", "#", "z" * 257, "a b"])
tags = st.dictionaries(names, st.sampled_from(["1", "2", "", "v\\", "a\x7f", "long" * 20_000]), max_size=3)
values = st.one_of(
    st.floats(),
    st.booleans(),
    st.integers(-(2**64), 2**64),
    st.sampled_from(["", "text", "\x00", "a" * 65_537]),
)
fields = st.dictionaries(names, values, min_size=1, max_size=3)
times = st.one_of(st.none(), st.integers(0, 3), st.integers(-(2**64), 2**64), st.just(MAX_TIME))
points = st.tuples(st.integers(0, 9), names, tags, fields, times)
good_points = st.tuples(
    st.just(0),
    st.sampled_from(["m", "n"]),
    st.dictionaries(st.sampled_from(["s", "t", "user_id"]), st.just("7"), max_size=2),
    st.dictionaries(st.sampled_from(["f", "g"]), st.floats(0, 1), min_size=1),
    st.one_of(st.none(), st.integers(10, 14)),
)
HEADS = Heads()
"""Shared, as in the service: what one batch taught must not make another's bad points good."""
rules = st.builds(
    Rules,
    user_id=st.sampled_from([None, "7"]),
    oldest=st.just(2),
    received=st.just(SECOND),
    newest=st.sampled_from([MAX_TIME, SECOND]),
)


def columns(batch: list[Any]) -> Points:
    return Points(*list(zip(*batch, strict=True))[1:])


@settings(max_examples=500, deadline=None)
@given(st.lists(st.one_of(points, good_points), min_size=1, max_size=4), rules)
def test_both_ways_say_the_same(batch: list[Any], rules: Rules) -> None:
    check = Check("/points", rules)
    for point in batch:
        check.judge(*point)
    foreign = False
    try:
        check.refuse_foreign()
    except ServiceError:
        foreign = True
    assert (gather(columns(batch), rules, HEADS) is None) is (foreign or check.violations > 0)


@settings(deadline=None)
@given(st.lists(good_points, min_size=1, max_size=12), rules)
def test_every_value_is_there_and_the_later_one_wins(batch: list[Any], rules: Rules) -> None:
    expected: dict[tuple[Series, str, int], float] = {}
    untimed: dict[Series, int] = {}
    for _, measurement, given_tags, row, time in batch:
        user = {} if rules.user_id is None else {"user_id": rules.user_id}
        series = Series(measurement, tuple(sorted({**given_tags, **user}.items())))
        if time is None:
            time = SECOND + untimed.setdefault(series, 0)
            untimed[series] += 1
        expected |= {(series, field, time): value for field, value in row.items()}
    heads = Heads()
    gathered = gather(columns(batch), rules, heads)
    assert gather(columns(batch), rules, heads) == gathered
    assert gathered is not None
    assert gathered.points == len(batch)
    found = {
        (column.series, column.field, time): value
        for column in gathered.columns
        for time, value in zip(column.times, column.values, strict=True)
    }
    assert found == expected


def test_a_request_gives_its_points_with_their_times() -> None:
    body = b'{"points":[{"measurement":"m","fields":{"f":1},"timestamp":"1970-01-01T00:00:01Z"},'
    body += b'{"measurement":"m","fields":{"f":2}}]}'
    request = msgspec.json.decode(body, type=WriteRequest)
    assert list(entries(request)) == [(0, "m", {}, {"f": 1.0}, SECOND), (1, "m", {}, {"f": 2.0}, None)]
