"""Where InfluxDB's agents write, points that are wrong are left out, counted and named, and the others stored."""

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text
from werkzeug.test import TestResponse

from heartguard.audit.event import Event, decode
from heartguard.errors import ServiceError
from services.influx.src import check, partial
from services.influx.src.errors import LeftOut
from services.influx.src.influx_store import InfluxStore
from services.influx.src.line_protocol import LineBatch
from services.influx.src.store import Selection, TypeConflict
from services.influx.src.times import MAX_TIME, SECOND, UNBOUNDED
from services.influx.src.timeseries import TimeSeries

from ..callers import code, details
from . import faults
from .conftest import AnyStore, Backend, Caller, claims, postgres_only, running
from .faults import Proxy
from .http_server import Request
from .influx import Influx

AT_TEN = 1_717_236_000
PATH = "/timeseries/api/v2/write"
BAD = {
    "bad": "expected measurement",
    "m f=x 1717236000": "a field's value is no finite number",
    "m f=1 yesterday": "whole number as timestamp",
    "m,t=1,t=2 f=1 1717236000": "a tag key stands twice",
    "m f=1 99999999999999999999999999": "beyond 64 bits",
    "m f=1e999 1717236000": "is not a finite number",
    "m i=9223372036854775808i 1717236000": "is beyond 64 bits",
    "_m f=1 1717236000": "the measurement is a reserved name",
    "m,_t=1 f=1 1717236000": "the tag key '_t' is a reserved name",
    "m,t=a\\ f=1 1717236000": "expected measurement",
    "m time=1 1717236000": "the field key 'time' is a reserved name",
    "m _f=1 1717236000": "the field key '_f' is a reserved name",
    "m\x07 f=1 1717236000": "the measurement holds a control character",
    "m f=1 -9000000000": "is before 1700-01-01T00:00:00Z",
    "m f=1 9200000000": "as far ahead as points may lie",
    "m f=7i 1717236000": "the field 'f' is of type float, not integer",
    'm f="text" 1717236000': "the field 'f' is of type float, not string",
    "m f=t 1717236000": "the field 'f' is of type float, not boolean",
    "m new=2i,f=3i 1717236000": "the field 'f' is of type float, not integer",
}
"""Lines that are wrong, and what is said of them."""


@pytest.fixture(scope="module")
def bounded(backend: Backend) -> Iterator[Flask]:
    with running({**backend.environ, "TIMESERIES_EARLIEST": "1700-01-01"}) as app:
        yield app


@pytest.fixture
def admin(bounded: Flask, org: int) -> Caller:
    return Caller(bounded, org)


def send(caller: Caller, body: str | bytes, query: str = "?precision=s", **headers: str) -> TestResponse:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return caller.send("POST", f"{PATH}{query}", data=body, content_type="text/plain; charset=utf-8", headers=given)


def message(answer: TestResponse) -> str:
    assert answer.json is not None
    assert answer.json["message"] == answer.json["error"]["message"]
    return str(answer.json["message"])


def mixed(plain: bool) -> tuple[str, dict[int, str]]:
    """Good lines with a bad one of each kind among them, and what is to be said of these, by line."""
    lines: list[str] = []
    named: dict[int, str] = {}
    good = "m f={0}.5 {1}" if plain else 'm f={0}.5,s="a, b" {1}'
    for number, (line, what) in enumerate(BAD.items()):
        lines += [good.format(number, AT_TEN + number), "", "# a comment", line]
        named[len(lines)] = what
    return "\n".join(lines), named


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "with strings"])
@pytest.mark.parametrize("packed", [True, False], ids=["gzip", "as it is"])
def test_bad_points_of_every_kind_are_left_out_and_named(admin: Caller, plain: bool, packed: bool) -> None:
    text, named = mixed(plain)
    body = gzip.compress(text.encode()) if packed else text.encode()
    encoding = {"Content_Encoding": "gzip"} if packed else {}
    for _ in range(3):  # it may come again
        answer = send(admin, body, **encoding)
        assert (answer.status_code, code(answer)) == (422, "TS_422"), answer.text
        assert answer.json is not None
        assert (answer.json["code"], list(answer.json)) == ("unprocessable entity", ["code", "message", "error"])
        beginning = f"{len(BAD)} of {2 * len(BAD)} points were not stored: line 4: expected measurement"
        assert message(answer).startswith(beginning)
        found = details(answer)
        assert list(found) == [f"/lines/{number}" for number in named]
        for number, what in named.items():
            assert what in found[f"/lines/{number}"]
        assert [value for _, _, value in admin.rows(fields=["f"])] == [n + 0.5 for n in range(len(BAD))]
        assert admin.rows(fields=["new", "i", "time"]) == []


def test_the_message_names_each_with_its_measurement(admin: Caller) -> None:
    answer = send(admin, "cpu f=1 1\ncpu f=2i 2\nmem f=3i 3\ncpu f=4i 4\ncpu f=t 5\nmem f=5 6")
    types = "the field 'f' is of type {}, not {} (in '{}')"
    assert message(answer) == (
        f"4 of 6 points were not stored: lines 2, 4: {types.format('float', 'integer', 'cpu')};"
        f" line 5: {types.format('float', 'boolean', 'cpu')}; line 6: {types.format('integer', 'float', 'mem')}"
    )
    assert code(answer) == "TS_002", "nothing else is wrong"


@pytest.mark.parametrize("before", [True, False], ids=["stored before", "of the batch"])
def test_the_first_type_of_a_field_counts(admin: Caller, before: bool) -> None:
    if before:
        assert send(admin, "m f=1i 1").status_code == 204
    lines = "m f=2i 2\nm f=3 3\nm f=4i 4\nm f=5 5"
    for _ in range(2):
        assert list(details(send(admin, lines))) == ["/lines/2", "/lines/4"]
    assert [value for _, _, value in admin.rows()] == ([1] if before else []) + [2, 4]


def test_a_point_that_is_left_out_gives_no_field_its_type(admin: Caller) -> None:
    answer = send(admin, 'm f=1 1\nm g=1i,f="text" 2\nm h=1i 99999999999\nm g=2 3\nm h=3 4')
    assert list(details(answer)) == ["/lines/2", "/lines/3"]
    assert [(field, value) for _, field, value in admin.rows()] == [("f", 1.0), ("g", 2.0), ("h", 3.0)]


def test_all_that_is_wrong_with_a_point_is_named(admin: Caller) -> None:
    answer = send(admin, "m a=1,b=1 1\nm a=t,b=t 2\n_m,_t=1 f=1 99999999999")
    assert answer.json is not None
    assert [detail["path"] for detail in answer.json["error"]["details"]] == ["/lines/2"] * 2 + ["/lines/3"] * 3
    assert message(answer).startswith("2 of 3 points")


@pytest.mark.parametrize("bad", ["bad", "_m f=1", "m f=1 99999999999", 'm f="text" 1'])
def test_points_without_a_time_are_all_kept(admin: Caller, bad: str) -> None:
    """They come at the same moment, also where the batch is sent to the store in several ways."""
    lines = "\n".join(["m f=0", *(f"m f={n}" for n in range(1, 5)), bad, *(f"m,t=x f={n}" for n in range(5, 8))])
    assert send(admin, lines).status_code == 422
    assert sorted(value for _, _, value in admin.rows()) == list(range(8))


def test_points_without_a_time_where_none_may_lie_ahead(backend: Backend, org: int) -> None:
    with running({**backend.environ, "TIMESERIES_AHEAD_SECONDS": "0"}) as app:
        assert send(Caller(app, org), "m f=1\nm f=2\nm f=3\nbad").status_code == 422
        assert len(Caller(app, org).rows()) == 3
        assert Caller(app, org).lines("m f=4\nm f=5\nm f=6").status_code == 200
        assert len(Caller(app, org).rows()) == 6


def test_points_older_than_the_retention(admin: Caller) -> None:
    name = f"org_{admin.org_id}_short"
    assert admin.create(name, retention_seconds=3600).status_code == 201
    now = int(time.time())
    answer = send(admin, f"m f=1 {now}\nm f=2 {now - 4000}\nm f=3 {now - 60}", f"?precision=s&bucket={name}")
    assert "older than the bucket's retention" in details(answer)["/lines/2"]
    assert "line 2: the timestamp is older than the bucket's retention" in message(answer)
    assert sorted(value for _, _, value in admin.rows(bucket=name)) == [1.0, 3.0]


def test_where_all_points_are_wrong_nothing_is_stored(admin: Caller) -> None:
    answer = send(admin, "_m f=1 1\nbad\nm f=1 99999999999")
    assert (answer.status_code, list(details(answer))) == (422, ["/lines/1", "/lines/2", "/lines/3"])
    assert message(answer).startswith("3 of 3 points were not stored")
    assert admin.rows() == []


UNREADABLE: dict[str, tuple[bytes, dict[str, str]]] = {
    "no line that is one": (b"bad\nworse\n", {}),
    "no lines": (b"\n# nothing\n", {}),
    "nothing": (b"", {}),
    "not UTF-8": (b"m f=1 1\nm,t=\xff f=1 2", {}),
    "not gzip": (b"m f=1 1", {"Content_Encoding": "gzip"}),
    "cut short": (gzip.compress(b"m f=1 1" * 100)[:-9], {"Content_Encoding": "gzip"}),
}


@pytest.mark.parametrize(("body", "headers"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_body_that_cannot_be_read(admin: Caller, body: bytes, headers: dict[str, str]) -> None:
    answer = send(admin, body, **headers)
    assert (answer.status_code, code(answer)) == (400, "TS_400")
    assert answer.json is not None
    assert answer.json["code"] == "invalid"
    assert message(answer)
    assert admin.rows() == []


def test_another_user_s_point_keeps_all_from_being_stored(admin: Caller) -> None:
    user = admin.as_user(7)
    answer = send(user, "m f=1 1\nbad\nm,user_id=8 f=2 2\nm,user_id=7 f=3 3")
    assert (answer.status_code, details(answer)) == (403, {"/lines/3": "is not your user_id"})
    assert answer.json is not None
    assert answer.json["code"] == "forbidden"
    assert admin.rows() == []
    assert send(user, "m f=1 1\nbad\nm,user_id=7 f=3 3\nm f=x 4").status_code == 422
    assert len(user.rows()) == len(admin.rows(tags={"user_id": "7"})) == 2


def test_points_in_json_and_xml_are_left_out_too(admin: Caller) -> None:
    points = [{"measurement": name, "fields": {"f": 1}, "timestamp": "2024-06-01T10:00:00Z"} for name in ("m", "_m")]
    answer = admin.send("POST", PATH, {"points": points})
    assert (answer.status_code, list(details(answer))) == (422, ["/points/1/measurement"])
    assert message(answer) == "1 of 2 points was not stored: point 1: the measurement is a reserved name (in '_m')"
    assert len(admin.rows()) == 1
    answer = admin.send("POST", PATH, {"points": [*points, {"measurement": 7, "fields": {}}]})
    assert (answer.status_code, len(admin.rows())) == (422, 1), "a body that breaks the schema is not looked into"


def test_in_xml_the_message_is_at_the_top_already(admin: Caller) -> None:
    answer = send(admin, "m f=1 1\nbad", Accept="application/xml")
    assert answer.text.partition("?>")[2].lstrip().startswith("<Error><code>TS_422</code><message>1 of 2 points")
    assert "<path>/lines/2</path>" in answer.text


def test_the_other_route_stays_all_or_nothing(admin: Caller) -> None:
    text, named = mixed(plain=True)
    answer = admin.lines(text, "?precision=s")
    assert answer.status_code == 422
    assert answer.json is not None
    assert list(answer.json) == ["error"]
    assert len(details(answer)) >= len(named) - 4, "conflicts of types may be found one by one"
    assert admin.rows() == []


# However much is wrong


@postgres_only
def test_millions_of_bad_lines_are_counted(admin: Caller) -> None:
    body = b"x\n" * 4_000_000 + b"m f=1 1\n" + b"x\n" * 4_000_000
    answer = send(admin, gzip.compress(body, 1), Content_Encoding="gzip")
    assert answer.status_code == 422
    assert message(answer).startswith("8000000 of 8000001 points were not stored: lines 1-10000: expected measurement")
    assert message(answer).endswith("; and 7990000 more")
    assert len(details(answer)) == check.MAX_DETAILS
    assert len(admin.rows()) == 1


@postgres_only
def test_more_wrong_points_than_are_named(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MAX_DETAILS", 5)
    lines = [f"m f={n} {n}\n_m,_t=1 f=1 {n}" for n in range(9)]
    answer = send(admin, "\n".join(lines))
    assert list(details(answer)) == [f"/lines/{number}" for number in range(2, 12, 2)]
    assert message(answer).startswith("9 of 18 points")
    assert message(answer).endswith("; and 4 more")
    assert len(admin.rows()) == 9


@postgres_only
@pytest.mark.parametrize(("module", "name"), [(partial, "MOST_READ"), (check, "MAX_SERIES")])
def test_too_much_to_be_looked_through_is_to_be_sent_in_parts(
    admin: Caller, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    """A 413, to which agents send halves."""
    monkeypatch.setattr(module, name, 10)
    lines = [f'm,t={n} f={n},s="x" {n}' for n in range(11)]
    answer = send(admin, "\n".join([*lines, "_m f=1"]))
    assert (answer.status_code, code(answer)) == (413, "TS_413")
    assert answer.json is not None
    assert answer.json["code"] == "request too large"
    assert "send it in smaller ones" in message(answer)
    assert admin.rows() == []
    assert send(admin, "\n".join([*lines[:6], "_m f=1"])).status_code == 422
    assert len(admin.rows(fields=["f"])) == 6


# The audit trail


@pytest.fixture
def told(admin: Caller, superuser: Any, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Event]]:
    """The events of writes."""
    sent: list[Event] = []
    trail = admin.app.extensions["heartguard.audit"]
    put = trail.put
    monkeypatch.setattr(trail, "put", lambda *events: (sent.extend(events), put(*events)))

    def read() -> list[Event]:
        found = sent
        if backend.kind == "postgres":
            with superuser.transaction() as tx:
                rows = tx.execute(text("SELECT event FROM heartguard_core.audit_outbox ORDER BY id")).scalars()
                found = list(map(decode, map(str.encode, rows)))
        return [event for event in found if event.org_id == admin.org_id and event.action == "TIMESERIES_WRITE"]

    return read


def test_the_audit_trail_is_told_how_many_were_left_out(admin: Caller, told: Callable[[], list[Event]]) -> None:
    bucket = f"org_{admin.org_id}"
    assert send(admin, "m f=1 1\nm f=2 2\nbad\nm f=3i 3\n_m f=1 1").status_code == 422
    assert send(admin, "m f=1 1\nm f=2 2").status_code == 204
    assert send(admin, "_m f=1 1").status_code == 422
    assert [(event.outcome, event.actor, event.payload) for event in told()] == [
        ("failure", "1", {"bucket": bucket, "values": 2, "left_out": 3}),
        ("success", "1", {"bucket": bucket, "values": 2}),
    ], "nothing was stored of the last one"


# Races, and what only the store knows


def batch(lines: str) -> LineBatch:
    return LineBatch(points=[], lines=lines.encode(), precision=SECOND)


def values_of(store: AnyStore, org: int) -> list[Any]:
    bucket = store.bucket(org, f"org_{org}")
    assert bucket is not None
    everything = Selection(
        measurement="m", start=0, stop=MAX_TIME + 1, fields=None, tags={}, aggregate=None, window=1, limit=1000
    )
    return [row.value for row in store.select(bucket, everything)]


@pytest.mark.parametrize("lines", ["m f=1 1\nm g=2 2\nm f=3 3", 'm f=1 1\nm g=2,s="x" 2\nm f=3 3\nbad'])
def test_a_type_that_somebody_else_gives_a_field_meanwhile(
    store: AnyStore, other_store: AnyStore, org: int, lines: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the batch was looked over, and before it is stored."""
    mine, other = TimeSeries(store, UNBOUNDED), TimeSeries(other_store, UNBOUNDED)
    mine.write_influx(batch("m other=1 1"), claims(org))

    def interfere() -> None:
        monkeypatch.undo()
        other.write_influx(batch('m f="text" 9'), claims(org))

    if isinstance(store, InfluxStore):
        write = store._client.write
        monkeypatch.setattr(store._client, "write", lambda *given: (interfere(), write(*given)))
    else:
        make = store.batch
        monkeypatch.setattr(store, "batch", lambda *given: (interfere(), make(*given))[1])
    with pytest.raises(LeftOut) as left_out:
        mine.write_influx(batch(lines), claims(org))
    assert [detail.path for detail in left_out.value.details][:2] == ["/lines/1", "/lines/3"]
    assert "the field 'f' is of type string, not float" in left_out.value.message
    assert set(values_of(store, org)) - {"x"} == {1.0, 2.0, "text"}, "1.0 is from before"


def test_batches_that_race_for_types_lose_nothing_that_is_not_named(backend: Backend, bounded: Flask, org: int) -> None:
    """Each batch gives new fields types of its own: every point is stored as it was sent, or named."""
    rounds, writers = 6, 4
    values = ["{}.5", "{}i", '"{}"', "t"]
    caller = Caller(bounded, org)
    lost: list[str] = []
    barrier = threading.Barrier(writers)

    def write(writer: int) -> None:
        for number in range(rounds):
            lines = [
                f"m,w={writer},n={n} f{number}_{n % 3}={values[writer].format(n)} {AT_TEN + number}" for n in range(12)
            ]
            barrier.wait(30)
            answer = send(caller, "\n".join(lines))
            while answer.status_code == 503:
                answer = send(caller, "\n".join(lines))
            named = set(details(answer)) if answer.status_code == 422 else set()
            if answer.status_code not in {204, 422}:
                lost.append(answer.text)
            kept.extend((writer, number, n) for n in range(12) if f"/lines/{n + 1}" not in named)

    kept: list[tuple[int, int, int]] = []
    threads = [threading.Thread(target=write, args=[writer]) for writer in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert lost == []
    found = set()
    answer = caller.query(range_stop="2261-12-31T23:59:59Z", limit=100_000)
    assert answer.json is not None
    start = datetime.fromtimestamp(AT_TEN, UTC)
    for row in answer.json["results"]:
        number = (datetime.fromisoformat(row["time"]) - start) // timedelta(seconds=1)
        found.add((int(row["tags"]["w"]), number, int(row["tags"]["n"])))
    assert found == set(kept)
    assert len(kept) >= rounds * 12


@pytest.fixture
def faulty(influx: Influx, proxy: Proxy, org: int) -> Iterator[Caller]:
    """Of the service behind the proxy."""
    with running(influx.environ(INFLUX_URL=proxy.url)) as app:
        yield Caller(app, org)


def refuse_odd(proxy: Proxy, said: str) -> None:
    """Store nothing of what comes with a field ``odd``, as InfluxDB writes no other shard once one fails."""

    def find(request: Request) -> tuple[int, str, str] | None:
        odd = request.body.count(b" odd=")
        return (422, "unprocessable entity", f"partial write: {said} dropped={odd}") if odd else None

    proxy.set("POST", "/write", faults.refused_where(find))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("max key length exceeded", "the store refuses it"),
        ('field type conflict: input field "odd" is type float', "a field is stored with another type"),
    ],
)
def test_points_that_only_the_store_refuses_are_found(faulty: Caller, proxy: Proxy, said: str, why: str) -> None:
    refuse_odd(proxy, said)
    lines = [f"m f={n} {n}" for n in range(200)]
    lines[17] = lines[150] = "m odd=1 1"
    answer = send(faulty, "\n".join(lines))
    assert (answer.status_code, details(answer)) == (422, {"/lines/18": why, "/lines/151": why})
    assert message(answer) == f"2 of 200 points were not stored: lines 18, 151: {why} (in 'm')"
    assert len(faulty.rows()) == 198


def test_more_than_can_be_looked_for_are_said_to_be_perhaps_lost(
    faulty: Caller, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_odd(proxy, "max key length exceeded")
    monkeypatch.setattr(partial, "MOST_WRITES", 8)
    lines = [f"m {'odd' if n % 5 == 0 else 'f'}={n} {n}" for n in range(100)]
    answer = send(faulty, "\n".join(lines))
    assert answer.status_code == 422
    said = message(answer)
    assert "more perhaps not: lines " in said
    assert "may not have been stored: the store refuses it" in said
    lost, perhaps = int(said.split()[0]), int(said.partition("and ")[2].split()[0])
    assert lost + perhaps + len(faulty.rows()) == 100, "each point is stored, or said not to be for sure"


def test_an_influxdb_that_goes_away_half_way(faulty: Caller, proxy: Proxy) -> None:
    """It is sent again, and then complete."""
    assert send(faulty, "other f=1 1").status_code == 204
    answers = [faults.refused(422, "unprocessable entity", "partial write: something dropped=1"), faults.passed_on]
    answers.append(faults.refused(503, "unavailable", "busy", Retry_After="7"))

    def in_turn(proxy: Proxy, request: Request) -> Iterator[bytes]:
        yield from (answers.pop(0) if answers else faults.passed_on)(proxy, request)

    proxy.set("POST", "/write", in_turn)
    lines = "\n".join(["bad", *(f"m f={n} {n}" for n in range(10))])
    first, again = send(faulty, lines), send(faulty, lines)
    assert (first.status_code, first.headers["Retry-After"]) == (503, "7")
    assert first.json is not None
    assert first.json["code"] == "unavailable"
    assert (again.status_code, list(details(again))) == (422, ["/lines/1"])
    assert len(faulty.rows()) == 10


def test_a_bucket_that_is_dropped_meanwhile(faulty: Caller, influx: Influx) -> None:
    assert send(faulty, "m f=1 1").status_code == 204
    influx.drop(influx.bucket(f"org_{faulty.org_id}")["id"])
    assert send(faulty, "m f=2i 2\nbad").status_code == 422
    assert [value for _, _, value in faulty.rows()] == [2]
    assert send(faulty, "m f=2i 2\nbad", f"?bucket=org_{faulty.org_id}_none").status_code == 404


def test_a_conflict_that_goes_on_is_to_be_sent_again(
    store: AnyStore, org: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is stored then, so nothing is lost."""
    mine = TimeSeries(store, UNBOUNDED)
    mine.write_influx(batch("m f=1 1"), claims(org))
    made = store.batch

    class Contested:
        def __init__(self, *given: Any) -> None:
            self.add = made(*given).add

        def write(self, _left_out: int = 0) -> None:
            raise TypeConflict

    monkeypatch.setattr(store, "batch", Contested)
    monkeypatch.setattr(partial, "MOST_WRITES", 8)
    with pytest.raises(ServiceError) as refused:
        mine.write_influx(batch("\n".join(f'm f={n},s="x" {n}' for n in range(100))), claims(org))
    assert refused.value.status == 503


def test_nothing_is_stored_without_the_audit_trail(faulty: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ServiceError(503)

    monkeypatch.setattr(faulty.app.extensions["heartguard.audit"], "check", refuse)
    assert send(faulty, "m f=1 1\nbad").status_code == 503
    assert faulty.rows() == []
    assert json.loads(send(faulty, "m f=1 1\nbad").text)["code"] == "unavailable"
