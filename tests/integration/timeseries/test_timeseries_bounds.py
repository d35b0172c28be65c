"""Where the time of a point may lie: TIMESERIES_EARLIEST and TIMESERIES_AHEAD_SECONDS, in every format and store."""

import gzip
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from xml.etree.ElementTree import fromstring

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from ..callers import details
from .conftest import Backend, Caller, running

BOUNDS = {"TIMESERIES_EARLIEST": "2000-02-03", "TIMESERIES_AHEAD_SECONDS": "7200"}
EARLIEST = datetime(2000, 2, 3, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

Send = Callable[[Caller, list[datetime]], TestResponse]


@pytest.fixture(scope="module")
def bounded(backend: Backend) -> Iterator[Flask]:
    with running({**backend.environ, **BOUNDS}) as app:
        yield app


@pytest.fixture
def caller(bounded: Flask, org: int) -> Caller:
    return Caller(bounded, org, "user", 7)


def text_of(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def seconds_of(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())


def by_json(caller: Caller, times: list[datetime]) -> TestResponse:
    return caller.write(*({"measurement": "m", "fields": {"f": 1}, "timestamp": text_of(time)} for time in times))


def by_xml(caller: Caller, times: list[datetime]) -> TestResponse:
    point = "<point><measurement>m</measurement><fields><f>1</f></fields><timestamp>{}</timestamp></point>"
    body = "".join(point.format(text_of(time)) for time in times)
    headers = {"Content-Type": "application/xml", "Accept": "application/xml"}
    text = f"<WriteRequest><points>{body}</points></WriteRequest>"
    return caller.send("POST", "/timeseries/write", headers=headers, data=text)


def by_plain_lines(caller: Caller, times: list[datetime]) -> TestResponse:
    text = "\n".join(f"m,user_id=7 f=1 {seconds_of(time)}" for time in times)
    return caller.lines(text, "?precision=s")


def by_quoted_lines(caller: Caller, times: list[datetime]) -> TestResponse:
    """Read one by one, not surveyed."""
    text = "\n".join(f'm,user_id=7 f=1,s="x" {seconds_of(time)}' for time in times)
    return caller.lines(gzip.compress(text.encode()), "?precision=s", headers={"Content-Encoding": "gzip"})


FORMATS = pytest.mark.parametrize("send", [by_json, by_xml, by_plain_lines, by_quoted_lines])


@FORMATS
def test_points_within_the_bounds_are_stored(caller: Caller, send: Send) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    assert send(caller, [EARLIEST, now, now + timedelta(hours=2) - MINUTE]).status_code == 200
    assert len(caller.rows(fields=["f"])) == 3


@FORMATS
def test_a_point_outside_is_named_and_nothing_is_stored(caller: Caller, send: Send) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    answer = send(caller, [now, EARLIEST - timedelta(seconds=1), now + timedelta(hours=2) + MINUTE])
    assert answer.status_code == 422
    if send is by_xml:
        found = {one.findtext("path"): one.findtext("message") or "" for one in fromstring(answer.text).iter("detail")}
    else:
        found = dict(details(answer))
    json_like = send in (by_json, by_xml)
    early, late = ("/points/1/timestamp", "/points/2/timestamp") if json_like else ("/lines/2", "/lines/3")
    assert set(found) == {early, late}
    assert found[early] == "is before 2000-02-03T00:00:00Z, the earliest time that is stored here"
    assert "as far ahead as points may lie" in found[late]
    assert caller.rows() == []


def test_the_bound_wins_over_a_longer_retention(bounded: Flask, org: int) -> None:
    admin = Caller(bounded, org)
    name = f"org_{org}_century"
    assert admin.create(name, retention_seconds=3_153_600_000).status_code == 201
    lines = f"m f=1 {seconds_of(EARLIEST) - 1}"
    assert "earliest" in details(admin.lines(lines, f"?precision=s&bucket={name}"))["/lines/1"]


def test_the_defaults(org: int, backend: Backend) -> None:
    with running({**backend.environ, "TIMESERIES_EARLIEST": ""}) as app:
        caller = Caller(app, org)
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        assert by_json(caller, [datetime(1970, 1, 1, tzinfo=UTC), tomorrow - MINUTE]).status_code == 200
        assert by_json(caller, [datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)]).status_code == 422
        assert by_json(caller, [tomorrow + MINUTE]).status_code == 422
