"""What InfluxDB can do to the service: be away, hang, refuse, take a part only, break off, and lie."""

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from heartguard.errors import Unavailable
from heartguard.settings import SettingsError, load
from services.influx.src import influx_answers, influx_buckets, influx_http
from services.influx.src.errors import TooMuch
from services.influx.src.influx_answers import read
from services.influx.src.influx_client import InfluxClient
from services.influx.src.influx_flux import RAW
from services.influx.src.influx_http import InfluxError
from services.influx.src.settings import Settings
from services.influx.src.times import SECOND, format_time

from ..callers import code, details
from . import faults
from .conftest import STORES, Caller, running, store_of
from .faults import Fault, Proxy
from .influx import Influx

TEN = "2024-06-01T10:00:00Z"
AT_TEN = 1_717_236_000 * SECOND


@dataclass
class Told:
    """Takes the audit trail's events."""

    events: list[Any] = field(default_factory=list)

    def put(self, *given: Any) -> None:
        self.events.extend(given)

    def check(self) -> None:
        pass

    def stop(self) -> None:
        pass


@pytest.fixture
def told(app: Flask) -> Iterator[Told]:
    trail = app.extensions["heartguard.audit"]
    app.extensions["heartguard.audit"] = told = Told()
    yield told
    app.extensions["heartguard.audit"] = trail


@pytest.fixture
def app(influx: Influx, proxy: Proxy) -> Iterator[Flask]:
    with running(influx.environ(INFLUX_URL=proxy.url)) as app:
        yield app


def point(**changes: Any) -> dict[str, Any]:
    return {"measurement": "m", "fields": {"f": 1}, "timestamp": TEN, **changes}


def bucket(caller: Caller, name: str = "") -> str:
    return f"org_{caller.org_id}{name}"


def test_it_goes_away_and_comes_back(app: Flask, admin: Caller, proxy: Proxy) -> None:
    assert admin.write(point()).status_code == 200
    assert app.test_client().get("/timeseries/ready").status_code == 200
    with proxy.away():
        answers = [
            admin.write(point()),
            admin.lines("m f=1 5"),
            admin.query(),
            admin.create(bucket(admin, "_x")),
            admin.send("GET", "/timeseries/buckets"),
            admin.send("DELETE", f"/timeseries/buckets/{bucket(admin)}"),
        ]
        for answer in answers:
            assert (answer.status_code, answer.headers["Retry-After"], code(answer)) == (503, "1", "TS_503")
            assert proxy.url not in answer.text
        ready = app.test_client().get("/timeseries/ready")
        assert ready.status_code == 503
        assert ready.json is not None
        assert [(check["name"], check["status"]) for check in ready.json["checks"]] == [("influx", "failed")]
        assert app.test_client().get("/timeseries/health").status_code == 200
    assert admin.rows() == [(TEN, "f", 1.0)]
    assert admin.write(point(fields={"f": 2})).status_code == 200


@pytest.mark.parametrize("wrong", [{"INFLUX_TOKEN": "another"}, {"INFLUX_ORG": "another"}])
def test_settings_that_influxdb_does_not_know(influx: Influx, org: int, wrong: dict[str, str]) -> None:
    with running(influx.environ(**wrong)) as app:
        assert app.test_client().get("/timeseries/ready").status_code == 503
        assert Caller(app, org).write(point()).status_code == 503


@pytest.mark.parametrize("missing", ["INFLUX_TOKEN", "INFLUX_ORG"])
def test_settings_are_checked_at_start(missing: str) -> None:
    given = {**STORES, "INFLUX_URL": "http://influx", "INFLUX_TOKEN": "t", "INFLUX_ORG": "o", missing: ""}
    with pytest.raises(SettingsError, match=missing):
        load(Settings, given)
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        load(Settings, {**given, "TIMESERIES_BACKEND": "postgres"})
    assert load(Settings, {**STORES, "DATABASE_URL": "postgresql://x"}).backend == "postgres"


@pytest.fixture
def client(influx: Influx, proxy: Proxy) -> Iterator[InfluxClient]:
    client = InfluxClient(proxy.url, influx.address.token, influx.address.org)
    yield client
    client.close()


HANGING = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n\r\n#datatype",
}


@pytest.mark.parametrize("answer", HANGING.values(), ids=HANGING)
def test_a_server_that_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, client: InfluxClient, answer: bytes
) -> None:
    """It is asked on another connection whether it answers anything."""
    assert influx_http.SILENCE_SECONDS + influx_http.ALIVE_SECONDS + influx_http.CONNECT_SECONDS <= 5
    monkeypatch.setattr(influx_http, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(influx_http, "ALIVE_SECONDS", 0.3)
    proxy.set("*", "*", faults.raw(answer))
    for use in (client.check, lambda: client.write("b", b"m f=1 1"), lambda: list(client.query(RAW, {}))):
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            use()
        assert time.monotonic() - begun < 1.5


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(influx_http, "SILENCE_SECONDS", 0.1)
    monkeypatch.setattr(influx_http, "TRUSTED_FOR", 0.1)
    monkeypatch.setattr(influx_http, "ALIVE_SECONDS", 0.3)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_was_found_silent_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, client: InfluxClient
) -> None:
    """Else requests would find out one after another, until no thread is left for anything else."""
    monkeypatch.setattr(influx_http, "RETRY_AFTER", 60)
    proxy.set("*", "*", faults.raw(b""))
    with pytest.raises(Unavailable):
        list(client.query(RAW, {}))
    asked = len(proxy.asked)
    for use in (client.check, lambda: client.write("b", b"m f=1 1"), lambda: client.query(RAW, {})):
        with pytest.raises(Unavailable):
            use()
    assert len(proxy.asked) == asked


@pytest.mark.usefixtures("impatient")
def test_those_who_wait_for_a_silent_server_share_one_look(proxy: Proxy, client: InfluxClient) -> None:
    proxy.set("*", "*", faults.raw(b""))
    with ThreadPoolExecutor(8) as pool:
        uses = [pool.submit(client.write, "b", b"m f=1 1") for _ in range(8)]
        assert {type(use.exception(10)) for use in uses} == {Unavailable}
    assert len(proxy.of("/buckets")) < 8


@pytest.mark.usefixtures("impatient")
def test_a_server_that_speaks_again_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, client: InfluxClient
) -> None:
    monkeypatch.setattr(influx_http, "RETRY_AFTER", 0)
    with proxy.fault("*", "*", faults.raw(b"")):
        for _ in range(2):
            with pytest.raises(Unavailable):
                client.check()
    client.check()


def test_all_that_a_request_asks_has_one_limit(
    admin: Caller, proxy: Proxy, influx: Influx, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that answers each question just in time would otherwise be waited for again and again."""
    assert admin.write(point()).status_code == 200
    monkeypatch.setattr(influx_http, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(influx_buckets, "PAGE", 2)
    for number in range(9):
        influx.create(bucket(admin, f"_{number}"))
    proxy.asked.clear()
    proxy.set("*", "*", faults.slow(0.3))
    for use in (
        lambda: admin.write(point(measurement="new")),
        lambda: admin.create(bucket(admin, "_y")),
        lambda: admin.send("GET", "/timeseries/buckets"),
        lambda: admin.query("another", aggregate="mean"),
    ):
        begun = time.monotonic()
        answer = use()
        assert answer.status_code == (422 if answer.request.path.endswith("query") else 503)
        assert time.monotonic() - begun < 2.5
        assert len(proxy.asked) <= 3
        proxy.asked.clear()


def test_a_question_that_takes_too_long(monkeypatch: pytest.MonkeyPatch, proxy: Proxy, client: InfluxClient) -> None:
    """Everything else is answered, so it is the question's fault."""
    monkeypatch.setattr(influx_http, "REQUEST_SECONDS", 0.6)
    monkeypatch.setattr(influx_http, "SILENCE_SECONDS", 0.1)
    proxy.set("POST", "/query", faults.slow(2))
    with pytest.raises(TooMuch):
        client.query(RAW, {})
    assert proxy.of("/buckets"), "whether it answers is asked"
    assert len(proxy.of("/query")) == 1, "the question is not asked twice"


def test_a_write_whose_question_takes_too_long_is_to_be_sent_again(
    admin: Caller, monkeypatch: pytest.MonkeyPatch, proxy: Proxy
) -> None:
    """Telegraf would drop what is answered with 400 or 422."""
    assert admin.write(point(measurement="other")).status_code == 200
    monkeypatch.setattr(influx_http, "REQUEST_SECONDS", 0.5)
    proxy.set("POST", "/query", faults.slow(1))
    for answer in writes(admin):
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1"), answer.text
    assert admin.query().status_code == 422


def test_a_write_whose_question_has_too_long_an_answer_is_to_be_sent_again(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert admin.write(point(fields={"f": 1, "g": 1})).status_code == 200
    monkeypatch.setattr(influx_answers, "MAX_SERIES", 1)
    store_of(admin.app)._types._known.forget(known_key(admin))
    for answer in writes(admin):
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1"), answer.text
    assert admin.query().status_code == 422


def known_key(admin: Caller) -> tuple[str, str]:
    found = store_of(admin.app).bucket(admin.org_id, bucket(admin))
    return found.id, "m"


def writes(admin: Caller) -> Iterator[TestResponse]:
    """As points, as lines, as InfluxDB's clients do, and with a mistake, whose answer needs the types too."""
    yield admin.write(point())
    yield admin.lines("m f=1 5")
    yield admin.send("POST", "/timeseries/api/v2/write", data="m f=1 5", content_type="text/plain; charset=utf-8")
    yield admin.lines("m f=1 5\nm f= 6")


BROKEN = {
    "no HTTP": b"hello\r\n\r\n",
    "no JSON": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "a gateway's page": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\n<html",
    "a redirection": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "too many requests": b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_a_server_that_makes_no_sense(proxy: Proxy, client: InfluxClient, answer: bytes) -> None:
    proxy.set("*", "*", faults.raw(answer))
    with pytest.raises(Unavailable):
        client.check()


@pytest.fixture
def many(admin: Caller) -> Caller:
    """With so many points that InfluxDB compresses its answers."""
    assert admin.lines("\n".join(f"m f={number},i={number}i {number}" for number in range(1000))).status_code == 200
    assert len(admin.rows()) == 1000
    return admin


@pytest.mark.parametrize("accept", ["application/json", "application/xml"])
def test_long_answers_are_read(many: Caller, proxy: Proxy, accept: str) -> None:
    """InfluxDB compresses those from 1,400 bytes on, and sends them in chunks."""
    asked = {"measurement": "m", "range_start": "1970-01-01T00:00:00Z", "limit": 5000}
    for aggregate in ({}, {"aggregate": "max", "window": "1s"}, {"aggregate": "mean", "window": "1s"}):
        answer = many.send("POST", "/timeseries/query", {**asked, **aggregate}, headers={"Accept": accept})
        assert answer.status_code == 200
        assert re.search(r"count\W+2000\b" if not aggregate else r"count\W+2\b", answer.text)
    sent = proxy.pass_on(proxy.of("/query")[-1])
    assert "Transfer-Encoding" in sent.headers


INCOMPLETE: dict[str, Fault] = {
    **faults.BREAKING_OFF,
    "longer than it says": faults.of_length(lambda length: length // 3),
    "shorter than it says": faults.of_length(lambda length: length + 1),
    "no CSV": faults.changed(lambda body: b'{"results": []}'),
    "without the last line of CSV": faults.changed(lambda body: b"".join(body.splitlines(keepends=True)[:-2])),
    "half a line of CSV": faults.changed(lambda body: body[: body.rfind(b",")]),
    "a number that is none": faults.changed(lambda body: body.replace(b",7,", b",seven,")),
    "a time that is none": faults.changed(lambda body: body.replace(b"1970-01-01T", b"yesterday ")),
    "an unknown type": faults.changed(lambda body: body.replace(b"double", b"decimal")),
    "bytes that are no UTF-8": faults.changed(lambda body: body.replace(b",f", b",\xff")),
    "not packed, though it says so": faults.said(200, b"hello", Content_Encoding="gzip", Content_Type="text/csv"),
}


@pytest.mark.parametrize("broken", INCOMPLETE.values(), ids=INCOMPLETE)
def test_of_an_answer_that_is_broken_nothing_is_believed(many: Caller, proxy: Proxy, broken: Fault) -> None:
    with proxy.fault("POST", "/query", broken):
        answer = many.query(limit=5000)
        assert (answer.status_code, code(answer)) == (503, "TS_503")
    assert len(many.rows(limit=5000)) == 2000


LISTS: dict[str, Fault] = {
    **faults.BREAKING_OFF,
    "longer than it says": INCOMPLETE["longer than it says"],
    "shorter than it says": INCOMPLETE["shorter than it says"],
    "no JSON": faults.changed(lambda body: body[:-1]),
    "another JSON": faults.changed(lambda body: b"[]"),
    "without buckets": faults.changed(lambda body: b"{}"),
}


@pytest.mark.parametrize("broken", LISTS.values(), ids=LISTS)
def test_of_a_list_of_buckets_that_is_broken_nothing_is_believed(many: Caller, proxy: Proxy, broken: Fault) -> None:
    with proxy.fault("GET", "/buckets", broken):
        assert many.send("GET", "/timeseries/buckets").status_code == 503
    assert many.send("GET", "/timeseries/buckets").status_code == 200


def test_a_conflict_that_only_influxdb_sees_is_told(admin: Caller, told: Told, influx: Influx) -> None:
    """Another process was quicker: what could be stored is, and nobody says that all of it was."""
    assert admin.write(point(fields={"g": 1.0})).status_code == 200
    influx.write(bucket(admin), f'm f="text" {AT_TEN}')
    known = store_of(admin.app)._types._known
    key = (influx.bucket(bucket(admin))["id"], "m")
    for write in (
        lambda: admin.write(point(), point(fields={"g": 2.0}, timestamp="2024-06-01T10:00:01Z")),
        lambda: admin.lines(f"m f=1 {AT_TEN}\nm g=3 {AT_TEN + 2 * SECOND}\n"),
    ):
        known.keep([(key, {"g": "float", "f": "float"})])
        told.events.clear()
        answer = write()
        assert (answer.status_code, code(answer)) == (422, "TS_002")
        assert answer.json is not None
        assert "At least 1 of the points were not stored" in answer.json["error"]["message"]
        assert list(details(answer).values()) == ["the field 'f' is of type string, not float"]
        assert known.get(key) == {"f": "string", "g": "float"}, "what was remembered was wrong"
        (event,) = told.events
        assert (event.action, event.outcome) == ("TIMESERIES_WRITE", "failure")
        assert event.payload == {"bucket": bucket(admin), "values": 2, "dropped_points": 1}
    assert [row[2] for row in admin.rows(fields=["g"])] == [1.0, 2.0, 3.0]


def test_a_retention_that_only_influxdb_knows_of_is_told(admin: Caller, influx: Influx) -> None:
    now = format_time(time.time_ns())
    for _ in range(2):  # the bucket is remembered once it was looked up
        assert admin.write(point()).status_code == 200
    influx.keep_for(bucket(admin), 3600)
    answer = admin.write(point(), point(timestamp=now))
    assert (answer.status_code, code(answer)) == (422, "TS_422")
    assert answer.json is not None
    assert "At least 1 of the points were not stored, because they are older" in answer.json["error"]["message"]
    assert list(details(answer)) == ["/points/0/timestamp"]
    # Now it is known, and nothing is written.
    answer = admin.write(point(), point(timestamp=now, fields={"h": 1}))
    assert (answer.status_code, [row[1] for row in admin.rows()]) == (422, ["f"])


def test_types_are_asked_for_once(admin: Caller, proxy: Proxy) -> None:
    for value in range(5):
        assert admin.write(point(fields={"f": value})).status_code == 200
        assert admin.lines(f"m f={value} 5").status_code == 200
    assert len(proxy.of("/query")) == 2, "all fields of the measurement, and the one that was not among them"


def test_types_hold_in_all_of_influxdb_s_shards(admin: Caller) -> None:
    """InfluxDB itself would let a field have another type a week later."""
    assert admin.write(point()).status_code == 200
    answer = admin.write(point(fields={"f": "text"}, timestamp="2020-01-01T00:00:00Z"))
    assert (answer.status_code, code(answer)) == (422, "TS_002")


def test_two_types_of_a_field_that_are_there_all_the_same(admin: Caller, influx: Influx) -> None:
    """Of both in one range InfluxDB gives those of the first shard's type only."""
    assert admin.write(point(tags={"t": "a"})).status_code == 200
    influx.write(bucket(admin), 'm,t=b f="text" 5')
    with running(influx.environ()) as other:
        caller = Caller(other, admin.org_id)
        assert [row[2] for row in caller.rows(range_stop="2000-01-01T00:00:00Z")] == ["text"]
        late = {"range_start": "2000-01-01T00:00:00Z", "tags": {"t": "a"}}
        assert [row[2] for row in caller.rows(**late)] == [1.0]
        assert caller.rows(**late, aggregate="mean") == [("2024-06-01T10:01:00Z", "f", 1.0)]
        assert caller.write(point(fields={"other": 1})).status_code == 200


def test_an_error_in_the_middle_of_an_answer() -> None:
    head = ["#datatype,string,long,double\r\n", "#default,_result,,\r\n", ",result,table,_value\r\n", ",,0,1.5\r\n"]
    for error in (["\r\n", "error,reference\r\n", "it broke,\r\n"], [",error,reference\r\n", ",it broke,897\r\n"]):
        found = read([*head, *error])
        assert next(found).value == 1.5
        with pytest.raises(InfluxError, match="it broke"):
            next(found)


BREAKING: dict[str, Fault] = {
    "in the middle of a 200": faults.said(
        200, b"\r\n,error,reference\r\n,memory limit exceeded,897\r\n", Content_Type="text/csv; charset=utf-8"
    ),
    "a 400": faults.refused(400, "invalid"),
    "a 500": faults.refused(500, "internal error"),
}


@pytest.mark.parametrize("broken", BREAKING.values(), ids=BREAKING)
def test_an_error_that_nobody_knows_is_a_503(admin: Caller, proxy: Proxy, broken: Fault) -> None:
    assert admin.write(point()).status_code == 200
    proxy.set("POST", "/query", broken)
    for answer in (
        admin.query(),
        admin.query(aggregate="spread"),
        admin.write(point(measurement="another")),
        admin.lines("another f=1 5"),
        admin.lines("another f=1 5\nanother f= 6"),
    ):
        assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "1"), answer.text
    store = store_of(admin.app)
    with pytest.raises(Unavailable):
        store.measurements(store.bucket(admin.org_id, bucket(admin)))


def test_a_bucket_that_influxdb_does_not_make_for_reasons_unknown_is_a_503(admin: Caller, proxy: Proxy) -> None:
    proxy.set("POST", "/buckets", faults.refused(422, "unprocessable entity"))
    assert admin.create(bucket(admin, "_x")).status_code == 503


def by_result(turned: bool) -> Callable[[bytes], bytes]:
    """Sorts the tables of an answer by the names of their results."""

    def change(body: bytes) -> bytes:
        tables = [table for table in body.split(b"\r\n\r\n") if table.strip()]
        names = [re.search(rb"#default,(\w*)", table)[1] for table in tables]  # type: ignore[index]
        order = sorted(range(len(tables)), key=lambda place: names[place], reverse=turned)
        return b"".join(tables[place].strip() + b"\r\n\r\n" for place in order) or body

    return change


@pytest.mark.parametrize("turned", [False, True])
def test_results_come_in_any_order(admin: Caller, proxy: Proxy, turned: bool) -> None:
    """Flux promises none."""
    lines = [f"m i={number}i,f={number} {number}" for number in (1, 5)]
    lines += [f"m big={2**62}i,low={-(2**62)}i {number}" for number in range(5)] + ["m big=0i,low=0i 9"]
    assert admin.lines("\n".join(lines)).status_code == 200
    proxy.set("POST", "/query", faults.changed(by_result(turned)))
    assert [row[1:] for row in admin.rows(aggregate="spread", fields=["i", "f"])] == [("f", 4.0), ("i", 4)]
    for aggregate, value in (("sum", 5.0 * 2**62), ("mean", 5 / 6 * 2**62)):
        found = admin.rows(aggregate=aggregate, fields=["big", "low"])
        assert [row[1:] for row in found] == [("big", pytest.approx(value)), ("low", pytest.approx(-value))]


def test_nothing_that_is_sent_stands_in_a_query_s_text(admin: Caller, proxy: Proxy) -> None:
    odd = 'x") |> drop(columns: ["_value"]) //${1}'
    assert admin.write(point(measurement=odd, tags={odd: odd}, fields={odd: 1.0})).status_code == 200
    assert admin.rows(odd, fields=[odd], tags={odd: odd}) == [(TEN, odd, 1.0)]
    assert admin.rows(odd, fields=[odd], tags={odd: odd}, aggregate="spread", window="1h")[0][2] == 0.0
    queries = [json.loads(request.content)["query"] for request in proxy.of("/query")]
    assert len(queries) >= 4
    assert not any("x" in query.replace("max", "").replace("exact", "") for query in queries)


def test_the_audit_trail_is_told(admin: Caller, told: Told) -> None:
    """As with PostgreSQL: once of everything that changes something, with bucket and number of values."""
    assert admin.write(point(fields={"a": 1, "b": 2}), point(fields={"s": "x"})).status_code == 200
    assert admin.lines("m a=1,b=2 5\nm a=3,b=4 6").status_code == 200
    assert admin.create(bucket(admin, "_x")).status_code == 201
    assert admin.create(bucket(admin, "_x")).status_code == 409
    assert admin.send("DELETE", f"/timeseries/buckets/{bucket(admin, '_x')}").status_code == 204
    assert admin.write(point(fields={"a": "text"})).status_code == 422
    assert [(event.action, event.payload) for event in told.events] == [
        ("BUCKET_CREATE", {"bucket": bucket(admin)}),
        ("TIMESERIES_WRITE", {"bucket": bucket(admin), "values": 3}),
        ("TIMESERIES_WRITE", {"bucket": bucket(admin), "values": 4}),
        ("BUCKET_CREATE", {"bucket": bucket(admin, "_x")}),
        ("BUCKET_DELETE", {"bucket": bucket(admin, "_x")}),
    ]
