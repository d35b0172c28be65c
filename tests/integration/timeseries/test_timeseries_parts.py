"""A question costs InfluxDB what its answer needs, however much the range holds."""

import json
from collections.abc import Iterator
from statistics import mean, median, stdev
from typing import Any

import pytest
from flask import Flask

from services.influx.src import influx_read

from .conftest import Caller, influx_only, running
from .faults import Proxy
from .influx import Influx

pytestmark = [pytest.mark.usefixtures("backend"), influx_only]
POINTS = 20_000
AGGREGATES = ["mean", "median", "max", "min", "count", "sum", "first", "last", "stddev", "spread"]


@pytest.fixture
def proxy(influx: Influx) -> Iterator[Proxy]:
    proxy = Proxy(influx.address.url)
    yield proxy
    proxy.stop()


@pytest.fixture
def app(influx: Influx, proxy: Proxy) -> Iterator[Flask]:
    with running(influx.environ(INFLUX_URL=proxy.url)) as app:
        yield app


@pytest.fixture
def a_second_each(admin: Caller) -> Caller:
    """A point a second, from the epoch on; its value is its second."""
    lines = "\n".join(f"m f={second},i={second}i {second}" for second in range(POINTS))
    assert admin.lines(lines, "?precision=s").status_code == 200
    return admin


def ranges(proxy: Proxy) -> list[tuple[str, str]]:
    """Of the questions that were put for points."""
    found = []
    for request in proxy.of("/query"):
        asked = json.loads(request.body)
        if "first() |> keep" not in asked["query"] and "group(columns" not in asked["query"]:
            options = {one["assignment"]["id"]["name"]: one["assignment"]["init"] for one in asked["extern"]["body"]}
            found.append((options["start"]["value"], options["stop"]["value"]))
    return found


@pytest.mark.parametrize("aggregate", [None, *AGGREGATES])
def test_only_as_much_is_asked_for_as_is_wanted(a_second_each: Caller, proxy: Proxy, aggregate: str | None) -> None:
    wanted: dict[str, Any] = {"aggregate": aggregate, "window": "2s"} if aggregate else {}
    asked = {**wanted, "fields": ["f"], "limit": 10, "range_start": "1970-01-01T00:00:00Z"}
    assert len(a_second_each.rows(**asked)) == 10
    proxy.asked.clear()
    assert len(a_second_each.rows(**asked)) == 10
    assert {start for start, _ in ranges(proxy)} == {"1970-01-01T00:00:00Z"}
    assert {stop for _, stop in ranges(proxy)} == {"1970-01-01T00:00:20Z" if aggregate else "1970-01-01T00:00:10Z"}


@pytest.mark.parametrize("aggregate", [None, "mean", "median", "stddev"])
def test_points_that_lie_far_apart_are_found_in_few_questions(
    admin: Caller, proxy: Proxy, aggregate: str | None
) -> None:
    days = range(0, 2_000, 7)
    lines = "\n".join(f"m f={day} {day * 86_400}\nm f={day} {day * 86_400 + 1}" for day in days)
    assert admin.lines(lines, "?precision=s").status_code == 200
    proxy.asked.clear()
    wanted = {"aggregate": aggregate, "window": "1m"} if aggregate else {}
    found = admin.rows(**wanted, limit=len(days) * 2)
    assert len(found) == len(days) * (1 if aggregate else 2)
    assert [time for time, *_ in found] == sorted(time for time, *_ in found)
    assert len(proxy.of("/query")) < 40


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("field", ["f", "i"])
def test_parts_give_what_the_whole_would(
    a_second_each: Caller, monkeypatch: pytest.MonkeyPatch, aggregate: str, field: str
) -> None:
    asked = {"aggregate": aggregate, "window": "700s", "fields": [field], "limit": 1000}
    whole = a_second_each.rows(**asked)
    assert len(whole) == -(-POINTS // 700)
    monkeypatch.setattr(influx_read, "COSTLY_WINDOWS", 3)
    monkeypatch.setattr(influx_read, "COSTLY", frozenset(AGGREGATES))
    assert a_second_each.rows(**asked) == whole


def test_many_series_come_in_parts(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "\n".join(f"m,t={series} f={time} {time}" for time in range(100) for series in range(40))
    assert admin.lines(lines, "?precision=s").status_code == 200
    whole = admin.query(limit=4_000, range_stop="1970-01-02T00:00:00Z").json
    monkeypatch.setattr(influx_read, "EXTRA_ROWS", 50)
    assert whole is not None
    for limit in (1, 39, 40, 41, 500):
        answer = admin.query(limit=limit, range_stop="1970-01-02T00:00:00Z").json
        assert answer is not None
        assert answer["results"] == whole["results"][:limit]


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_windows_longer_than_influxdb_can_count_with(admin: Caller, aggregate: str) -> None:
    """Of 100,000 days and the like InfluxDB never comes to an end, even when nobody waits any more."""
    day = 86_400
    values = {-9_000 * day: 3, -1: 5, 0: 7, 4_000 * day: 11, 4_001 * day: 2, 20_000 * day: 13}
    assert (
        admin.lines("\n".join(f"m i={value}i {at}" for at, value in values.items()), "?precision=s").status_code == 200
    )
    for days in (91, 366, 3_650, 100_000, 999_999_999):
        window = days * day if days < 100_000_000 else 10**12
        groups: dict[int, list[int]] = {}
        for at in sorted(values):
            groups.setdefault(at // window, []).append(values[at])
        of: dict[str, Any] = {
            "mean": mean, "median": median,
            "max": max, "min": min, "count": len, "sum": sum, "first": lambda found: found[0],
            "last": lambda found: found[-1], "spread": lambda found: max(found) - min(found),
            "stddev": stdev,
        }  # fmt: skip
        least = 2 if aggregate == "stddev" else 1
        wanted = [of[aggregate](group) for _, group in sorted(groups.items()) if len(group) >= least]
        found = [value for _, _, value in admin.rows(aggregate=aggregate, window=f"{days}d")]
        assert found == pytest.approx(wanted), days
