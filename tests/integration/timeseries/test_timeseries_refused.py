"""What InfluxDB refuses of writes that were found to be good, and whose matter it is: sender's or operator's."""

import json
import re
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog
from flask import Flask
from structlog.testing import LogCapture
from werkzeug.test import TestResponse

from services.influx.src import errors, influx_http, influx_refusals
from services.influx.src.errors import PartlyWritten
from services.influx.src.influx_http import InfluxError
from services.influx.src.influx_refusals import unreadable_lines
from services.influx.src.store import FieldType, Series
from services.influx.src.transfer import TransferError, _at

from ..callers import code, details
from . import faults
from .conftest import Caller, add, running, store_of
from .faults import Proxy, refused
from .http_server import Request
from .influx import Influx

TEN = "2024-06-01T10:00:00Z"
AT_TEN = 1_717_236_000


@pytest.fixture
def app(influx: Influx, proxy: Proxy) -> Iterator[Flask]:
    with running(influx.environ(INFLUX_URL=proxy.url)) as app:
        yield app


def bucket(caller: Caller, name: str = "") -> str:
    return f"org_{caller.org_id}{name}"


def unreadable(request: Request) -> tuple[int, str, str] | None:
    """What InfluxDB would say if it could not read points with a field ``bad``."""
    lines = re.findall(r'^(?:[^"\n]|"[^"]*")+$', request.content.decode(), re.MULTILINE)
    bad = [f"unable to parse '{line}': invalid boolean" for line in lines if "bad=" in line]
    return (400, "invalid", "\n".join(bad)) if bad else None


@pytest.fixture
def fussy(proxy: Proxy) -> None:
    """An InfluxDB that cannot read some points, which nobody here knows of."""
    proxy.set("POST", "/write", faults.refused_where(unreadable))


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[MutableMapping[str, Any]]:
    """What is logged of InfluxDB."""
    capture = LogCapture()
    logger = structlog.wrap_logger(structlog.PrintLogger(), processors=[capture])
    for module in (errors, influx_http, influx_refusals):
        monkeypatch.setattr(module, "log", logger)
    return capture.entries


def point(**changes: object) -> dict[str, object]:
    return {"measurement": "m", "fields": {"f": 1}, "timestamp": TEN, **changes}


def influx_lines(caller: Caller, text: str, query: str = "") -> TestResponse:
    path = f"/timeseries/api/v2/write{query}"
    return caller.send("POST", path, data=text, content_type="text/plain; charset=utf-8")


def every_write(caller: Caller) -> Iterator[TestResponse]:
    """As points in both formats, as lines, as InfluxDB's clients do, and as lines that cannot be handed on."""
    yield caller.write(point())
    yield caller.send(
        "POST",
        "/timeseries/write",
        data="<WriteRequest><points><point><measurement>m</measurement><fields><f>1</f></fields></point></points>"
        "</WriteRequest>",
        content_type="application/xml",
    )
    yield caller.lines("m f=1 5")
    yield influx_lines(caller, "m f=1 5")
    yield caller.lines("m f=1")


UNREADABLE = "cannot be read by the store: 'invalid boolean'"


@pytest.mark.usefixtures("fussy")
def test_points_that_influxdb_cannot_read_are_named(
    admin: Caller, influx: Influx, proxy: Proxy, logged: list[MutableMapping[str, Any]]
) -> None:
    """A 503 would be sent again for ever."""
    given = [point(), point(fields={"bad": 1, "f": 2}), point(tags={"t": "é, ="}, fields={"bad": 2}, timestamp=None)]
    answer = admin.write(*[{key: value for key, value in one.items() if value is not None} for one in given])
    assert (answer.status_code, code(answer)) == (422, "TS_422")
    assert details(answer) == {"/points/1": UNREADABLE, "/points/2": UNREADABLE}
    assert "Retry-After" not in answer.headers
    assert influx.address.token not in answer.text
    assert proxy.url not in answer.text
    assert admin.rows() == []
    (line,) = logged
    assert line["reasons"] == ["invalid boolean"]
    assert "bad" not in str(line), "a log has no measured data"


@pytest.mark.usefixtures("fussy")
def test_lines_that_influxdb_cannot_read_are_named(admin: Caller) -> None:
    for text, query in (
        (f"m f=1 {AT_TEN}\nm bad=1 {AT_TEN}\nm,t=v bad=2 {AT_TEN}\n", "?precision=s"),
        ('m f=1\nm bad="a\n b"', ""),
    ):
        named = {f"/lines/{number}": UNREADABLE for number in range(2, 2 + text.count("bad"))}
        answer = admin.lines(text, query)
        assert (answer.status_code, code(answer), details(answer)) == (422, "TS_422", named)
        assert admin.rows() == []
        answer = influx_lines(admin, text, query)
        assert (answer.status_code, code(answer), details(answer)) == (422, "TS_422", named)
        assert [value for _, _, value in admin.rows()] == [1.0], "there the others are stored"
        assert admin.send("DELETE", f"/timeseries/buckets/{bucket(admin)}").status_code == 204


@pytest.mark.usefixtures("fussy")
def test_a_user_s_points_are_named_though_their_tag_was_set_for_them(admin: Caller) -> None:
    user = admin.as_user(5)
    assert details(user.write(point(), point(fields={"bad": 1}))) == {"/points/1": UNREADABLE}
    assert details(user.lines("m f=1\nm bad=2 5")) == {"/lines/2": UNREADABLE}


@pytest.mark.usefixtures("fussy")
def test_an_error_in_xml_names_them_too(admin: Caller) -> None:
    answer = admin.lines("m bad=1 5", headers={"Accept": "application/xml"})
    assert answer.status_code == 422
    assert "<path>/lines/1</path>" in answer.text


def test_a_line_that_is_not_found_again_is_quoted(admin: Caller, proxy: Proxy) -> None:
    said = "unable to parse 'm f=oh 5': invalid number\nunable to parse 'n f=1 5': bad\ntimestamp"
    proxy.set("POST", "/write", refused(400, "invalid", said))
    answer = admin.lines("m f=1 5")
    assert answer.json is not None
    assert answer.json["error"]["details"] == [
        {"path": "/lines", "message": "'m f=oh 5' cannot be read by the store: 'invalid number'"},
        {"path": "/lines", "message": "'n f=1 5' cannot be read by the store: 'bad\\ntimestamp'"},
    ]


@pytest.mark.usefixtures("fussy")
def test_more_than_is_read_of_an_answer(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(influx_http, "MAX_ERROR", 1000)
    answer = admin.write(
        *[point(fields={"bad": "ö" * 90, "f": number}, tags={"n": str(number)}) for number in range(50)]
    )
    assert (answer.status_code, code(answer)) == (422, "TS_422")
    assert details(answer)["/points/0"] == UNREADABLE
    answer = admin.write(point(fields={"bad": "x" * 2000}))
    assert (answer.status_code, code(answer)) == (422, "TS_422")
    assert details(answer)["/points"].startswith("'m bad=")
    assert details(answer)["/points"].endswith("xx…' cannot be read by the store")


def test_an_error_may_end_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = "unable to parse 'm s=\"é<\n😀\\\"': bad timestamp"
    body = json.dumps({"code": "invalid", "message": whole}, separators=(",", ":")).encode()
    begin = body.index(b"unable")
    for end in range(begin, len(body)):
        monkeypatch.setattr(influx_http, "MAX_ERROR", end)
        code, message = influx_http._said(body[:end])
        assert code == "invalid"
        assert whole.startswith(message)
        assert len(message) >= len(whole) - (len(body) - end) - 2
    assert influx_http._said(body) == ("invalid", whole)


def test_more_bad_points_than_are_named(admin: Caller, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.influx.src.check.MAX_DETAILS", 1)
    said = "unable to parse 'm f=1 5': a\nunable to parse 'm f=2 6': a"
    proxy.set("POST", "/write", refused(400, "invalid", said))
    assert details(admin.lines("m f=1 5\nm f=2 6")) == {"/lines/1": "cannot be read by the store: 'a'"}


OPERATOR_S = {
    "a bad token": (401, "unauthorized", "unauthorized access", "INFLUX_TOKEN"),
    "a token without rights": (403, "forbidden", "insufficient permissions for write", "INFLUX_TOKEN"),
    "no such organization": (404, "not found", 'organization name "bucket" not found', "INFLUX_ORG"),
    "no InfluxDB": (404, "", "page not found", "INFLUX_URL"),
}


@pytest.mark.parametrize(("status", "said", "message", "to_do"), OPERATOR_S.values(), ids=OPERATOR_S)
def test_what_the_operator_has_to_mend_is_a_503_and_the_log_says_what(
    admin: Caller,
    influx: Influx,
    proxy: Proxy,
    logged: list[MutableMapping[str, Any]],
    status: int,
    said: str,
    message: str,
    to_do: str,
) -> None:
    for _ in range(2):  # the bucket is remembered once it was looked up
        assert admin.write(point()).status_code == 200
    proxy.set("POST", "/write", refused(status, said, message))
    proxy.asked.clear()
    for answer in every_write(admin):
        assert (answer.status_code, code(answer), answer.headers["Retry-After"]) == (503, "TS_503", "1")
        assert message not in answer.text
        assert to_do in logged[-1]["to_do"]
        assert influx.address.token not in str(logged)
    assert {one.path for one in proxy.asked} <= {"/api/v2/write", "/api/v2/query"}, "the bucket is still known"


def test_an_organization_that_was_made_anew_is_found(admin: Caller, proxy: Proxy) -> None:
    """Its id is another one then."""
    assert admin.create(bucket(admin, "_x")).status_code == 201
    with proxy.fault("POST", "/buckets", refused(404, "not found", "organization not found")):
        assert admin.create(bucket(admin, "_y")).status_code == 503
    proxy.asked.clear()
    assert admin.create(bucket(admin, "_y")).status_code == 201
    assert any(one.method == "GET" for one in proxy.asked), "it is asked for again"


TRANSIENT = {
    "too many requests": (429, "too many requests", {"Retry_After": "17"}, "17"),
    "for a very long time": (503, "unavailable", {"Retry_After": "99999"}, "3600"),
    "until some date": (503, "unavailable", {"Retry_After": "Fri, 31 Dec 1999 23:59:59 GMT"}, "1"),
    "an error of its own": (500, "internal error", {}, "1"),
}


@pytest.mark.parametrize(("status", "said", "headers", "retry_after"), TRANSIENT.values(), ids=TRANSIENT)
def test_what_passes_is_a_503_to_be_sent_again_when_influxdb_says(
    admin: Caller, proxy: Proxy, status: int, said: str, headers: dict[str, str], retry_after: str
) -> None:
    proxy.set("POST", "/write", refused(status, said, **headers))
    for answer in every_write(admin):
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, retry_after)


@pytest.mark.parametrize("message", ["it broke", "gzipped HTTP body contains an invalid header"])
def test_a_400_that_names_no_line_is_not_the_batch_s_fault(
    admin: Caller, proxy: Proxy, logged: list[MutableMapping[str, Any]], message: str
) -> None:
    proxy.set("POST", "/write", refused(400, "invalid", message))
    for answer in every_write(admin):
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert message not in answer.text
        assert message in logged[-1]["error"]


def test_a_batch_that_is_too_large_for_it_is_to_be_divided(
    admin: Caller, proxy: Proxy, logged: list[MutableMapping[str, Any]]
) -> None:
    proxy.set("POST", "/write", refused(413, "request too large", "nginx/1.2"))
    for answer in every_write(admin):
        assert (answer.status_code, code(answer)) == (413, "TS_413")
        assert "smaller" in answer.text
        assert "nginx" not in answer.text
        assert "16 MiB" in logged[-1]["to_do"]


def test_a_bucket_that_is_gone_meanwhile(admin: Caller, influx: Influx) -> None:
    """The default one comes back; another is a 404."""
    assert admin.write(point()).status_code == 200
    influx.drop(influx.bucket(bucket(admin))["id"])
    assert admin.write(point()).status_code == 200
    other = bucket(admin, "_organization")
    assert admin.create(other).status_code == 201
    assert admin.write(point(), bucket=other).status_code == 200
    influx.drop(influx.bucket(other)["id"])
    for answer in (
        admin.write(point(), bucket=other),
        admin.lines("m f=1 5", f"?bucket={other}"),
        influx_lines(admin, "m f=1 5", f"?bucket={other}"),
    ):
        assert (answer.status_code, code(answer)) == (404, "TS_404")


@pytest.mark.parametrize("use", ["write", "query"])
def test_a_default_bucket_that_is_gone_meanwhile_comes_back(admin: Caller, influx: Influx, use: str) -> None:
    """Removed on InfluxDB's side, or lost with an older backup: each way of use makes it anew."""
    assert admin.write(point()).status_code == 200
    influx.drop(influx.bucket(bucket(admin))["id"])
    if use == "query":
        assert admin.rows() == []
    assert admin.write(point()).status_code == 200
    assert admin.rows() == [(TEN, "f", 1.0)]


def remember(admin: Caller, influx: Influx, types: dict[str, FieldType]) -> None:
    """Have the service take this for the types of a measurement's fields."""
    known = store_of(admin.app)._types._known
    known.keep([((influx.bucket(bucket(admin))["id"], "m"), types)])


def test_of_what_was_left_out_the_number_is_the_least(admin: Caller, influx: Influx) -> None:
    """InfluxDB tells of one shard only."""
    assert admin.write(point(measurement="other")).status_code == 200
    influx.write(bucket(admin), f"m f=t {AT_TEN}", "m f=t 5", precision="s")
    remember(admin, influx, {"f": "float", "g": "float"})
    answer = admin.lines(f"m f=1 {AT_TEN}\nm f=1 5\nm g=1 {AT_TEN}", "?precision=s")
    assert (answer.status_code, code(answer)) == (422, "TS_002")
    assert answer.json is not None
    assert answer.json["error"]["message"].startswith("At least 1 of the points were not stored")
    message = "the field 'f' is of type boolean, not float"
    assert details(answer) == {"/lines/1": message, "/lines/2": message}


def test_what_was_left_out_is_reported_though_it_cannot_be_named(admin: Caller, influx: Influx, proxy: Proxy) -> None:
    assert admin.write(point(measurement="other")).status_code == 200
    influx.write(bucket(admin), f"m f=t {AT_TEN}", precision="s")
    remember(admin, influx, {"f": "float"})
    proxy.set("POST", "/query", refused(500, "internal error"))
    answer = admin.lines(f"m f=1 {AT_TEN}", "?precision=s")
    assert (answer.status_code, code(answer), details(answer)) == (422, "TS_002", {})
    remember(admin, influx, {"f": "float"})
    answer = influx_lines(admin, f"m f=1 {AT_TEN}", "?precision=s")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1"), "an agent sends it again"


def test_points_left_out_for_a_reason_unknown(
    admin: Caller, proxy: Proxy, logged: list[MutableMapping[str, Any]]
) -> None:
    said = "failure writing points to database: partial write: max key length exceeded dropped=1"
    proxy.set("POST", "/write", refused(422, "unprocessable entity", said))
    for answer in every_write(admin):
        assert (answer.status_code, code(answer)) == (422, "TS_422")
        assert answer.json is not None
        assert "the store refuses" in answer.json["error"]["message"]
        assert logged[-1]["error"] == said


PLACE = " for database: 9f282d63c7d3a5c0 for retention policy: autogen"
CONFLICT = (
    'partial write: field type conflict: input field "f dropped=7" on measurement "m" is type float, already exists'
)


@pytest.mark.parametrize(
    ("said", "dropped"),
    [
        (f"{CONFLICT} as type string dropped=3", 3),
        (f"{CONFLICT} as type string dropped=3{PLACE}", 3),
        (f"partial write: points beyond retention policy dropped=12{PLACE}", 12),
        ("partial write: something", 0),
    ],
)
def test_how_many_points_were_left_out(said: str, dropped: int) -> None:
    assert PartlyWritten(f"failure writing points to database: {said}").dropped == dropped


def test_lines_are_read_out_of_a_message_whatever_is_in_them() -> None:
    said = "unable to parse 'm s=\"it's': 5\"': bad timestamp\nunable to parse 'm s=\"\n\"': missing fields"
    said += "\nunable to parse 'm"
    assert unreadable_lines(InfluxError(400, "invalid", said)) == [
        ("m s=\"it's': 5\"", "bad timestamp"),
        ('m s="\n"', "missing fields"),
        ("m", ""),
    ]
    assert unreadable_lines(InfluxError(400, "", said)) == []


@pytest.mark.usefixtures("fussy")
def test_a_transfer_says_that_points_cannot_be_read(admin: Caller) -> None:
    store = store_of(admin.app)
    made = store.create_bucket(admin.org_id, bucket(admin), retention_seconds=0, description=None)
    assert made is not None
    batch = store.batch(made)
    add(batch, Series("m", ()), 5, {"bad": 1.0})
    with pytest.raises(TransferError, match="here: The store cannot read some of the points"), _at("here"):
        batch.write()
