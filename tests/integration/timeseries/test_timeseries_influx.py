"""What InfluxDB can do to the service: be away, hang, refuse, take a part only, and fail in the middle of an answer."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from heartguard.errors import ServiceError, Unavailable
from heartguard.settings import SettingsError, load
from services.influx.src import influx_answers, influx_client, influx_http
from services.influx.src.errors import TooMuch
from services.influx.src.influx_answers import read
from services.influx.src.influx_client import InfluxClient
from services.influx.src.influx_flux import RAW
from services.influx.src.influx_http import InfluxError
from services.influx.src.settings import Settings
from services.influx.src.times import SECOND, format_time

from ..callers import code, details
from . import fake_influx
from .conftest import STORES, Caller, running
from .fake_influx import FakeInflux, environ

TEN = "2024-06-01T10:00:00Z"


@pytest.fixture
def fake() -> Iterator[tuple[str, FakeInflux]]:
    with fake_influx.serving() as found:
        yield found


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
def app(fake: tuple[str, FakeInflux]) -> Iterator[Flask]:
    with running(environ(fake[0])) as app:
        yield app


@pytest.fixture
def admin(app: Flask) -> Caller:
    return Caller(app, 7)


def point(**changes: Any) -> dict[str, Any]:
    return {"measurement": "m", "fields": {"f": 1}, "timestamp": TEN, **changes}


def test_it_goes_away_and_comes_back() -> None:
    with ExitStack() as stack:
        with fake_influx.serving() as (url, fake):
            app = stack.enter_context(running(environ(url)))
            admin = Caller(app, 7)
            assert admin.write(point()).status_code == 200
            assert app.test_client().get("/timeseries/ready").status_code == 200
        answers = [
            admin.write(point()),
            admin.lines("m f=1 5"),
            admin.query(),
            admin.create("org_7_x"),
            admin.send("GET", "/timeseries/buckets"),
            admin.send("DELETE", "/timeseries/buckets/org_7"),
        ]
        for answer in answers:
            assert (answer.status_code, answer.headers["Retry-After"], code(answer)) == (503, "1", "TS_503")
            assert url not in answer.text
        ready = app.test_client().get("/timeseries/ready")
        assert ready.status_code == 503
        assert ready.json is not None
        assert [(check["name"], check["status"]) for check in ready.json["checks"]] == [("influx", "failed")]
        assert app.test_client().get("/timeseries/health").status_code == 200
        stack.enter_context(fake_influx.serving(int(url.rpartition(":")[2]), fake))
        assert admin.rows() == [(TEN, "f", 1.0)]
        assert admin.write(point(fields={"f": 2})).status_code == 200


@pytest.mark.parametrize("wrong", [{"INFLUX_TOKEN": "another"}, {"INFLUX_ORG": "another"}])
def test_settings_that_influxdb_does_not_know(fake: tuple[str, FakeInflux], wrong: dict[str, str]) -> None:
    with running(environ(fake[0], **wrong)) as app:
        assert app.test_client().get("/timeseries/ready").status_code == 503
        assert Caller(app, 7).write(point()).status_code == 503


@pytest.mark.parametrize("missing", ["INFLUX_TOKEN", "INFLUX_ORG"])
def test_settings_are_checked_at_start(missing: str) -> None:
    given = {**STORES, **environ("http://influx"), missing: ""}
    with pytest.raises(SettingsError, match=missing):
        load(Settings, given)
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        load(Settings, {**given, "TIMESERIES_BACKEND": "postgres"})
    assert load(Settings, {**STORES, "DATABASE_URL": "postgresql://x"}).backend == "postgres"


@contextmanager
def server(answer: bytes) -> Iterator[str]:
    """Takes connections, says so much on each, and no more."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with ExitStack() as kept, suppress(OSError):
            while True:
                connection = kept.enter_context(listener.accept()[0])
                connection.recv(100_000)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        listener.close()


HANGING = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n\r\n#datatype",
}


@pytest.mark.parametrize("answer", HANGING.values(), ids=HANGING)
def test_a_server_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    monkeypatch.setattr(influx_http, "WAIT_SECONDS", 1)
    monkeypatch.setattr(influx_http, "QUERY_SECONDS", 1)
    with server(answer) as url:
        client = InfluxClient(url, "t", "o")

        def query() -> None:
            client._http._answered = time.monotonic()
            list(client.query(RAW, {}))

        for use in (client.check, lambda: client.write("b", b"m f=1 1"), query):
            begun = time.monotonic()
            with pytest.raises(ServiceError) as given_up:
                use()
            # Of an answer that was begun one cannot tell why it does not go on.
            assert isinstance(given_up.value, TooMuch if use is query and b"datatype" in answer else Unavailable)
            assert time.monotonic() - begun < 1.8 + (influx_client.ALIVE_SECONDS if use is query else 0)
        client.close()


@pytest.mark.parametrize("answer", HANGING.values(), ids=HANGING)
def test_no_question_is_put_to_a_server_that_hangs(answer: bytes) -> None:
    """It has not answered just now, so it is asked first whether it works: a query may take longer than this."""
    with server(answer) as url:
        client = InfluxClient(url, "t", "o")
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            client.query(RAW, {})
        assert time.monotonic() - begun < influx_client.ALIVE_SECONDS + 1
        client.close()


def test_all_that_a_request_asks_has_one_limit(
    admin: Caller, fake: tuple[str, FakeInflux], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that answers each question just in time would otherwise be waited for again and again."""
    assert influx_http.WAIT_SECONDS + influx_client.ALIVE_SECONDS <= 5
    assert admin.write(point()).status_code == 200
    monkeypatch.setattr(influx_http, "WAIT_SECONDS", 0.5)
    monkeypatch.setattr(influx_http, "QUERY_SECONDS", 0.5)
    for number in range(350):
        fake[1].create({"orgID": "0" * 16, "name": f"org_{number}_x"})
    fake[1].asked.clear()
    fake[1].seconds = 0.3
    for use in (
        lambda: admin.write(point(measurement="new")),
        lambda: admin.create("org_7_y"),
        lambda: admin.send("GET", "/timeseries/buckets"),
        lambda: admin.query("another", aggregate="mean"),
    ):
        begun = time.monotonic()
        answer = use()
        assert answer.status_code == (422 if answer.request.path.endswith("query") else 503)
        assert time.monotonic() - begun < 2.5
        assert len(fake[1].asked) <= 3
        fake[1].asked.clear()


def test_a_question_that_takes_too_long(monkeypatch: pytest.MonkeyPatch, fake: tuple[str, FakeInflux]) -> None:
    """Everything else is answered, so it is the question's fault."""
    monkeypatch.setattr(influx_http, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(FakeInflux, "query", lambda *_: time.sleep(1) or b"")
    monkeypatch.setattr(fake[1], "lock", ExitStack())
    client = InfluxClient(fake[0], fake_influx.TOKEN, fake_influx.ORG)
    with pytest.raises(TooMuch):
        client.query(RAW, {})
    paths = [path.rpartition("/")[2] for _, path in fake[1].asked]
    assert paths == ["buckets", "query", "buckets"], "it is not asked twice"
    client.close()


def test_a_write_whose_question_takes_too_long_is_to_be_sent_again(
    admin: Caller, monkeypatch: pytest.MonkeyPatch, fake: tuple[str, FakeInflux]
) -> None:
    """Telegraf would drop what is answered with 400 or 422."""
    assert admin.write(point(measurement="other")).status_code == 200
    monkeypatch.setattr(influx_http, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(FakeInflux, "query", lambda *_: time.sleep(1) or b"")
    monkeypatch.setattr(fake[1], "lock", ExitStack())
    for answer in writes(admin):
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1"), answer.text
    assert admin.query().status_code == 422


def test_a_write_whose_question_has_too_long_an_answer_is_to_be_sent_again(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert admin.write(point(fields={"f": 1, "g": 1})).status_code == 200
    monkeypatch.setattr(influx_answers, "MAX_SERIES", 1)
    admin.app.extensions["heartguard.sweeper"]._sweep.__self__._types._known.forget(known_key(admin))
    for answer in writes(admin):
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1"), answer.text
    assert admin.query().status_code == 422


def known_key(admin: Caller) -> tuple[str, str]:
    bucket = admin.app.extensions["heartguard.sweeper"]._sweep.__self__.bucket(7, "org_7")
    return bucket.id, "m"


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
def test_a_server_that_makes_no_sense(answer: bytes) -> None:
    with server(answer) as url:
        client = InfluxClient(url, "t", "o")
        with pytest.raises(Unavailable):
            client.check()
        client.close()


def test_a_conflict_that_only_influxdb_sees_is_told(admin: Caller, told: Told, fake: tuple[str, FakeInflux]) -> None:
    """Another process was quicker: what could be stored is, and nobody says that all of it was."""
    assert admin.write(point(fields={"g": 1.0})).status_code == 200
    bucket = fake[1].named("org_7")
    bucket.write([fake_influx.parse(f'm f="text" {admin_time()}')], 1)
    known = admin.app.extensions["heartguard.sweeper"]._sweep.__self__._types._known
    for write in (
        lambda: admin.write(point(), point(fields={"g": 2.0}, timestamp="2024-06-01T10:00:01Z")),
        lambda: admin.lines(f"m f=1 {admin_time()}\nm g=3 {admin_time() + 2 * SECOND}\n"),
    ):
        known.keep([((bucket.id, "m"), {"g": "float", "f": "float"})])
        told.events.clear()
        answer = write()
        assert (answer.status_code, code(answer)) == (422, "TS_002")
        assert answer.json is not None
        assert "At least 1 of the points were not stored" in answer.json["error"]["message"]
        assert list(details(answer).values()) == ["the field 'f' is of type string, not float"]
        assert known.get((bucket.id, "m")) == {"f": "string", "g": "float"}, "what was remembered was wrong"
        (event,) = told.events
        assert (event.action, event.outcome) == ("TIMESERIES_WRITE", "failure")
        assert event.payload == {"bucket": "org_7", "values": 2, "dropped_points": 1}
    assert [row[2] for row in admin.rows(fields=["g"])] == [1.0, 2.0, 3.0]


def admin_time() -> int:
    return 1_717_236_000 * SECOND


def test_a_retention_that_only_influxdb_knows_of_is_told(admin: Caller, fake: tuple[str, FakeInflux]) -> None:
    now = format_time(time.time_ns())
    for _ in range(2):  # the bucket is remembered once it was looked up
        assert admin.write(point()).status_code == 200
    fake[1].named("org_7").retention = 3600
    answer = admin.write(point(), point(timestamp=now))
    assert (answer.status_code, code(answer)) == (422, "TS_422")
    assert answer.json is not None
    assert "At least 1 of the points were not stored, because they are older" in answer.json["error"]["message"]
    assert list(details(answer)) == ["/points/0/timestamp"]
    # Now it is known, and nothing is written.
    answer = admin.write(point(), point(timestamp=now, fields={"h": 1}))
    assert (answer.status_code, [row[1] for row in admin.rows()]) == (422, ["f"])


def test_types_are_asked_for_once(admin: Caller, fake: tuple[str, FakeInflux]) -> None:
    for value in range(5):
        assert admin.write(point(fields={"f": value})).status_code == 200
        assert admin.lines(f"m f={value} 5").status_code == 200
    assert len(fake[1].queries) == 2, "all fields of the measurement, and the one that was not among them"


def test_types_hold_in_all_of_influxdb_s_shards(admin: Caller) -> None:
    """InfluxDB itself would let a field have another type a week later."""
    assert admin.write(point()).status_code == 200
    answer = admin.write(point(fields={"f": "text"}, timestamp="2020-01-01T00:00:00Z"))
    assert (answer.status_code, code(answer)) == (422, "TS_002")


def test_two_types_of_a_field_that_are_there_all_the_same(admin: Caller, fake: tuple[str, FakeInflux]) -> None:
    assert admin.write(point(tags={"t": "a"})).status_code == 200
    fake[1].named("org_7").write([fake_influx.parse('m,t=b f="text" 5')], 1)
    with running(environ(fake[0])) as other:
        caller = Caller(other, 7)
        assert [row[2] for row in caller.rows()] == ["text", 1.0]
        assert caller.rows(aggregate="mean", tags={"t": "a"}) == [("2024-06-01T10:01:00Z", "f", 1.0)]
        assert caller.write(point(fields={"other": 1})).status_code == 200


def test_an_error_in_the_middle_of_an_answer() -> None:
    head = ["#datatype,string,long,double\r\n", "#default,_result,,\r\n", ",result,table,_value\r\n", ",,0,1.5\r\n"]
    for error in (["\r\n", "error,reference\r\n", "it broke,\r\n"], [",error,reference\r\n", ",it broke,897\r\n"]):
        found = read([*head, *error])
        assert next(found).value == 1.5
        with pytest.raises(InfluxError, match="it broke"):
            next(found)


BREAKING = {
    "in the middle of a 200": lambda *_: b"\r\n,error,reference\r\n,memory limit exceeded,897\r\n",
    "a 400": lambda *_: refuse(400, "invalid"),
}


def refuse(status: int, code: str) -> NoReturn:
    raise fake_influx.Refused(status, code, "it broke")


@pytest.mark.parametrize("broken", BREAKING.values(), ids=BREAKING)
def test_an_error_that_nobody_knows_is_a_503(
    admin: Caller, fake: tuple[str, FakeInflux], monkeypatch: pytest.MonkeyPatch, broken: Callable[..., bytes]
) -> None:
    assert admin.write(point()).status_code == 200
    monkeypatch.setattr(FakeInflux, "query", broken)
    for answer in (
        admin.query(),
        admin.query(aggregate="spread"),
        admin.write(point(measurement="another")),
        admin.lines("another f=1 5"),
        admin.lines("another f=1 5\nanother f= 6"),
    ):
        assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "1"), answer.text
    store = admin.app.extensions["heartguard.sweeper"]._sweep.__self__
    with pytest.raises(Unavailable):
        store.measurements(store.bucket(7, "org_7"))


def test_a_bucket_that_influxdb_does_not_make_for_reasons_unknown_is_a_503(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeInflux, "create", lambda *_: refuse(422, "unprocessable entity"))
    assert admin.create("org_7_x").status_code == 503


@pytest.mark.parametrize("order", [list, lambda results: results[::-1]], ids=["as asked", "turned around"])
def test_results_come_in_any_order(
    admin: Caller, fake: tuple[str, FakeInflux], order: Callable[[list[str]], list[str]]
) -> None:
    fake[1].order = order
    lines = [f"m i={number}i,f={number} {number}" for number in (1, 5)]
    lines += [f"m big={2**62}i,low={-(2**62)}i {number}" for number in range(5)] + ["m big=0i,low=0i 9"]
    assert admin.lines("\n".join(lines)).status_code == 200
    assert [row[1:] for row in admin.rows(aggregate="spread", fields=["i", "f"])] == [("f", 4.0), ("i", 4)]
    for aggregate, value in (("sum", 5.0 * 2**62), ("mean", 5 / 6 * 2**62)):
        found = admin.rows(aggregate=aggregate, fields=["big", "low"])
        assert [row[1:] for row in found] == [("big", pytest.approx(value)), ("low", pytest.approx(-value))]


def test_nothing_that_is_sent_stands_in_a_query_s_text(admin: Caller, fake: tuple[str, FakeInflux]) -> None:
    odd = 'x") |> drop(columns: ["_value"]) //${1}'
    assert admin.write(point(measurement=odd, tags={odd: odd}, fields={odd: 1.0})).status_code == 200
    assert admin.rows(odd, fields=[odd], tags={odd: odd}) == [(TEN, odd, 1.0)]
    assert admin.rows(odd, fields=[odd], tags={odd: odd}, aggregate="spread", window="1h")[0][2] == 0.0
    assert not any("x" in asked["query"].replace("max", "").replace("exact", "") for asked in fake[1].queries)


def test_the_audit_trail_is_told(admin: Caller, told: Told) -> None:
    """As with PostgreSQL: once of everything that changes something, with bucket and number of values."""
    assert admin.write(point(fields={"a": 1, "b": 2}), point(fields={"s": "x"})).status_code == 200
    assert admin.lines("m a=1,b=2 5\nm a=3,b=4 6").status_code == 200
    assert admin.create("org_7_x").status_code == 201
    assert admin.create("org_7_x").status_code == 409
    assert admin.send("DELETE", "/timeseries/buckets/org_7_x").status_code == 204
    assert admin.write(point(fields={"a": "text"})).status_code == 422
    assert [(event.action, event.payload) for event in told.events] == [
        ("BUCKET_CREATE", {"bucket": "org_7"}),
        ("TIMESERIES_WRITE", {"bucket": "org_7", "values": 3}),
        ("TIMESERIES_WRITE", {"bucket": "org_7", "values": 4}),
        ("BUCKET_CREATE", {"bucket": "org_7_x"}),
        ("BUCKET_DELETE", {"bucket": "org_7_x"}),
    ]
