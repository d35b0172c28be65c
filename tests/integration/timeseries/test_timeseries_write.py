"""Writing points: formats, rules, and that a batch is written whole or not at all."""

import gzip
import math
import time
from typing import Any

import pytest
from flask import Flask

from heartguard.codec import encode
from heartguard.models.timeseries import Point, WriteRequest
from heartguard.negotiation import Format
from services.influx.src import check, db_write, gathering
from services.influx.src import points as rules
from services.influx.src.times import format_time, parse_time

from ..callers import code, details
from .conftest import Backend, Caller, postgres_only, running

T = "2024-06-01T10:00:00Z"


def point(**changes: Any) -> dict[str, Any]:
    return {"measurement": "m", "fields": {"f": 1}, "timestamp": T, **changes}


def test_points_in_json(admin: Caller) -> None:
    answer = admin.write(
        {"measurement": "m", "tags": {"user_id": "1"}, "fields": {"bpm": 72}, "timestamp": T},
        bucket=f"org_{admin.org_id}",
    )
    assert (answer.status_code, answer.json) == (200, {"success": True, "inserted": 1})
    found = admin.query().json
    assert found == {"results": [{"time": T, "field": "bpm", "value": 72.0, "tags": {"user_id": "1"}}], "count": 1}


def test_points_in_xml(admin: Caller) -> None:
    request = WriteRequest(
        points=[Point(measurement="m", tags={"t v": "a"}, fields={"b": True, "n": 5.0, "s": "x"}, timestamp=T)]
    )
    headers = {"Accept": "application/xml"}
    answer = admin.send(
        "POST", "/timeseries/write", data=encode(request, Format.XML), content_type="application/xml", headers=headers
    )
    assert answer.status_code == 200, answer.text
    assert answer.text.endswith("<WriteResult><success>true</success><inserted>1</inserted></WriteResult>")
    assert admin.rows() == [(T, "b", True), (T, "n", 5.0), (T, "s", "x")]


def test_points_in_line_protocol(admin: Caller) -> None:
    assert admin.create(f"org_{admin.org_id}_lines").status_code == 201
    answer = admin.lines('m,t=v i=72i,f=72,b=t,s="x" 1717236000123\n', f"?bucket=org_{admin.org_id}_lines&precision=ms")
    assert (answer.status_code, answer.json) == (200, {"success": True, "inserted": 1})
    time = "2024-06-01T10:00:00.123Z"
    expected = [(time, "b", True), (time, "f", 72.0), (time, "i", 72), (time, "s", "x")]
    found = admin.rows(bucket=f"org_{admin.org_id}_lines")
    assert found == expected
    assert [type(value) for *_, value in found] == [bool, float, int, str]


def test_gzip(admin: Caller) -> None:
    packed = gzip.compress(b"m f=1 5")
    assert admin.lines(packed, headers={"Content-Encoding": "gzip"}).status_code == 200
    assert admin.rows() == [("1970-01-01T00:00:00.000000005Z", "f", 1.0)]


def test_a_body_over_the_limit(admin: Caller) -> None:
    big = gzip.compress(b"#" * (16 * 1024 * 1024 + 1))
    answer = admin.lines(big, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, code(answer)) == (413, "TS_413")


def test_line_protocol_that_is_not_utf8(admin: Caller) -> None:
    assert admin.lines(b"m f=\xff").status_code == 400


@pytest.mark.parametrize("query", ["?precision=h", "?org=1", "?bucket=A"])
def test_query_strings_of_line_protocol(admin: Caller, query: str) -> None:
    assert admin.lines("m f=1", query).status_code == 422


def test_a_batch_without_points(admin: Caller) -> None:
    answer = admin.lines("# nothing\n")
    assert (answer.status_code, details(answer)) == (422, {"/lines": "the batch holds no points"})
    assert admin.write().status_code == 422


def test_the_time_of_receipt(admin: Caller) -> None:
    before = time.time_ns()
    assert admin.write({"measurement": "m", "fields": {"f": 1}}).status_code == 200
    ((at, *_),) = admin.rows()
    assert before <= parse_time(at) <= time.time_ns()


def test_points_without_time_do_not_replace_each_other(admin: Caller) -> None:
    answer = admin.lines("m,t=a f=1\nm,t=a f=2\nm,t=b f=3\nm,t=a g=4")
    assert answer.json == {"success": True, "inserted": 4}
    received = parse_time(admin.rows(tags={"t": "b"})[0][0])
    assert [(parse_time(at) - received, field, value) for at, field, value in admin.rows(tags={"t": "a"})] == [
        (0, "f", 1.0), (1, "f", 2.0), (2, "g", 4.0),
    ]  # fmt: skip


def test_nanoseconds_are_kept(admin: Caller) -> None:
    times = ["1969-12-31T23:59:59.999999999Z", "2024-06-01T10:00:00.000000001Z", "2024-06-01T10:00:00.000000002Z"]
    assert admin.write(*(point(timestamp=at) for at in times)).status_code == 200
    assert [at for at, *_ in admin.rows()] == times


def test_the_same_series_and_time_again_replaces_the_fields_given_and_keeps_the_others(admin: Caller) -> None:
    admin.write(point(fields={"a": 1, "b": 2}, tags={"x": "1", "y": "2"}))
    admin.write(point(fields={"b": 3, "c": 4}, tags={"y": "2", "x": "1"}))
    assert admin.rows() == [(T, "a", 1.0), (T, "b", 3.0), (T, "c", 4.0)]


def test_within_a_batch_the_later_point_wins(admin: Caller) -> None:
    answer = admin.write(point(fields={"a": 1, "b": 2}), point(fields={"b": 3}), point(fields={"a": 5}))
    assert answer.json == {"success": True, "inserted": 3}
    assert admin.rows() == [(T, "a", 5.0), (T, "b", 3.0)]


@pytest.mark.parametrize(("first", "second"), [("x", "y"), (True, False), (1, 2)], ids=["string", "boolean", "float"])
def test_every_type_can_be_overwritten(admin: Caller, first: object, second: object) -> None:
    for value in (first, second):
        assert admin.write(point(fields={"f": value})).status_code == 200
    assert admin.rows() == [(T, "f", second)]


def test_integers_keep_all_64_bits(admin: Caller) -> None:
    assert admin.lines(f"m a={2**63 - 1}i,b=-{2**63}i 0").status_code == 200
    assert [value for *_, value in admin.rows()] == [2**63 - 1, -(2**63)]


BAD_POINTS = {
    "/measurement": {"measurement": "_m"},
    "/measurement ": {"measurement": "#m"},
    "/measurement  ": {"measurement": "a\nb"},
    "/measurement   ": {"measurement": "a\\"},
    "/tags/time": {"tags": {"time": "x"}},
    "/tags/_field": {"tags": {"_field": "x"}},
    "/tags/a~1b~0": {"tags": {"a/b~": ""}},
    "/tags/t": {"tags": {"t": "a\tb"}},
    "/tags/t ": {"tags": {"t": "a\\"}},
    "/tags/": {"tags": {"": "x"}},
    "/tags": {"tags": {"k" * 257: "x"}},
    "/fields/time": {"fields": {"time": 1}},
    "/fields/_x": {"fields": {"_x": 1}},
    "/fields/": {"fields": {"": 1}},
    "/fields/s": {"fields": {"s": "é" * 32_769}},
    "/timestamp": {"timestamp": "2024-02-30T00:00:00Z"},
}  # fmt: skip


@pytest.mark.parametrize("path", BAD_POINTS)
def test_what_a_point_may_not_be(admin: Caller, path: str) -> None:
    answer = admin.write(point(), point(**BAD_POINTS[path]))
    assert (answer.status_code, code(answer), list(details(answer))) == (
        422,
        "TS_422",
        [f"/points/1{path.rstrip(' ')}"],
    )
    assert admin.rows() == []


def test_a_series_key_has_a_limit(admin: Caller) -> None:
    def tags(length: int) -> dict[str, Any]:
        return {"measurement": "m", "tags": {"t": "," * length}, "fields": {"f": 1}}

    assert admin.write(tags(32_763)).status_code == 200
    answer = admin.write(tags(32_764))
    assert (answer.status_code, list(details(answer))) == (422, ["/points/0/tags"])


def test_every_bad_point_is_named(admin: Caller) -> None:
    admin.write(point(fields={"typed": True}))
    answer = admin.write(
        point(),
        point(measurement="_m", tags={"time": "x"}),
        point(fields={"time": 1, "s": "x" * 65_537}),
        point(fields={"typed": 1}),
    )
    assert answer.status_code == 422
    assert code(answer) == "TS_422"
    assert set(details(answer)) == {
        "/points/1/measurement",
        "/points/1/tags/time",
        "/points/2/fields/s",
        "/points/2/fields/time",
        "/points/3/fields/typed",
    }
    assert admin.rows() == [(T, "typed", True)]


BAD_LINES = {
    "no line protocol": "m",
    "not finite": "m f=1e999",
    "beyond 64 bits": f"m f={2**63}i",
    "a time too late": "m f=1 9223372036854775807",
    "a time too early": "m f=1 -9223372036854775808",
    "a character that XML cannot carry": 'm f="\x01"',
    "reserved": "_m f=1",
    "a tag twice": "m,t=a,t=b f=1",
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_what_a_line_may_not_be(admin: Caller, line: str) -> None:
    answer = admin.lines(f"m f=1\n{line}\nm f=2")
    assert (answer.status_code, list(details(answer))) == (422, ["/lines/2"])
    assert admin.rows() == []


def test_every_bad_line_is_named(admin: Caller) -> None:
    answer = admin.lines("m f=1\nbad\nm f=1i\nm,time=x f=2\nm f=3 x")
    assert (answer.status_code, set(details(answer))) == (422, {"/lines/2", "/lines/3", "/lines/4", "/lines/5"})


def test_of_very_many_violations_the_first_of_each_point_is_named(admin: Caller) -> None:
    answer = admin.lines("_m,_t=x _f=1\n" * 4_000)
    assert len(details(answer)) == 4_000
    answer = admin.lines("bad\n" * (check.MAX_DETAILS + 1))
    assert len(details(answer)) == check.MAX_DETAILS
    assert "At least 10000" in answer.text
    admin.write(point())
    answer = admin.lines("m f=1i\n" * (check.MAX_DETAILS + 1))
    assert (code(answer), len(details(answer))) == ("TS_002", check.MAX_DETAILS)


@postgres_only
@pytest.mark.parametrize("chunk", [1, 3, 4, 100])
def test_large_batches_are_sent_in_pieces(admin: Caller, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(db_write, "CHUNK", chunk)
    values = {"a": "{}", "b": "{}i", "c": '"{}"'}
    lines = [f"m {field}={value.format(n)} {n}" for n in range(7) for field, value in values.items()]
    assert admin.lines("\n".join(lines), "?precision=s").status_code == 200
    assert [row[2] for row in admin.rows()] == [kind(n) for n in range(7) for kind in (float, int, str)]


def test_a_batch_has_a_limit_of_series(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gathering, check):
        monkeypatch.setattr(module, "MAX_SERIES", 3)
    assert admin.lines("m,t=1 f=1\nm,t=2 f=1\nm,t=3 f=1\nm,t=1 f=2").status_code == 200
    assert admin.lines("m,t=1 f=1\nm,t=2 f=1\nm,t=3 f=1\nm,t=4 f=2").status_code == 422


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(value: float) -> None:
    assert rules.value_problem(value) == "is not a finite number"


def test_a_number_in_json_that_is_too_large(admin: Caller) -> None:
    body = b'{"points": [{"measurement": "m", "fields": {"f": 1e999}}]}'
    answer = admin.send("POST", "/timeseries/write", data=body, content_type="application/json")
    assert answer.status_code in (400, 422)


# Types of fields.


def test_a_field_keeps_its_type(admin: Caller) -> None:
    admin.write(point(fields={"f": 1, "g": "x"}))
    answer = admin.write(
        point(fields={"f": 2}), point(fields={"f": "2", "g": 3}, tags={"other": "series"}), point(fields={"g": "fine"})
    )
    assert (answer.status_code, code(answer)) == (422, "TS_002")
    assert details(answer) == {
        "/points/1/fields/f": "the field 'f' is of type float, not string",
        "/points/1/fields/g": "the field 'g' is of type string, not float",
    }
    assert admin.rows() == [(T, "f", 1.0), (T, "g", "x")]


def test_a_field_has_one_type_within_a_batch(admin: Caller) -> None:
    answer = admin.lines("m f=1\nm,t=a f=2i\nm f=3\nm f=4i\nn f=5i")
    assert (answer.status_code, code(answer), list(details(answer))) == (422, "TS_002", ["/lines/2", "/lines/4"])
    assert admin.lines("m f=1i\nn f=1").status_code == 200, "a refused batch decides no type"


def test_a_type_is_the_matter_of_one_measurement_and_bucket(admin: Caller) -> None:
    assert admin.create(f"org_{admin.org_id}_b").status_code == 201
    assert admin.write(point()).status_code == 200
    assert admin.write(point(measurement="other", fields={"f": "x"})).status_code == 200
    assert admin.write(point(fields={"f": "x"}), bucket=f"org_{admin.org_id}_b").status_code == 200


def test_another_process_knows_the_type_too(admin: Caller, backend: Backend) -> None:
    assert admin.write(point()).status_code == 200
    with running(backend.environ) as other:
        answer = Caller(other, admin.org_id).write(point(fields={"f": "x"}))
    assert (answer.status_code, code(answer)) == (422, "TS_002")


# Whose points.


def test_a_user_writes_own_points_only(admin: Caller) -> None:
    user = admin.as_user(7)
    assert user.write(point(tags={"d": "watch"}), point(tags={"user_id": "7"})).status_code == 200
    answer = user.write(
        point(fields={"f": 9}), point(tags={"user_id": "8"}), point(measurement="_bad", tags={"user_id": ""})
    )
    assert (answer.status_code, code(answer)) == (403, "TS_403")
    assert list(details(answer)) == ["/points/1/tags/user_id", "/points/2/tags/user_id"]
    found = admin.query().json
    assert found is not None
    assert [row["tags"] for row in found["results"]] == [{"d": "watch", "user_id": "7"}, {"user_id": "7"}]


def test_a_user_s_lines_are_tagged_too(admin: Caller) -> None:
    assert admin.as_user(7).lines("m f=1 0\nm,user_id=7 f=2 0").status_code == 200
    assert admin.rows(tags={"user_id": "7"}) == [("1970-01-01T00:00:00Z", "f", 2.0)]
    answer = admin.as_user(7).lines("m f=1\nm,user_id=8 f=2")
    assert (answer.status_code, list(details(answer))) == (403, ["/lines/2"])


@pytest.mark.parametrize("role", ["manager", "admin"])
def test_others_write_any_points_as_they_are(admin: Caller, role: str) -> None:
    assert admin.as_user(9, role).write(point(), point(tags={"user_id": "8"})).status_code == 200
    found = admin.query().json
    assert found is not None
    assert [row["tags"] for row in found["results"]] == [{}, {"user_id": "8"}]


# Whose bucket.


@pytest.mark.parametrize("named", ["{0}", "org_{0}"])
def test_org_may_be_named(admin: Caller, named: str) -> None:
    assert admin.write(point(), org=named.format(admin.org_id)).status_code == 200


@pytest.mark.parametrize("named", ["1", "", "org_1", "org_{0}_x", "0{0}"])
def test_org_has_to_be_the_own_one(admin: Caller, named: str) -> None:
    answer = admin.write(point(), org=named.format(admin.org_id))
    assert (answer.status_code, code(answer)) == (403, "TS_403")


@pytest.mark.parametrize("name", ["org_1", "org_1_x", "org_{0}x", "org_{0}_", "org_0{0}", "bucket"])
def test_a_bucket_of_another_organization(admin: Caller, name: str) -> None:
    answer = admin.write(point(), bucket=name.format(admin.org_id))
    assert (answer.status_code, code(answer)) == (403, "TS_403")


def test_a_bucket_that_was_never_made(admin: Caller) -> None:
    answer = admin.write(point(), bucket=f"org_{admin.org_id}_none")
    assert (answer.status_code, code(answer)) == (404, "TS_404")


def test_retention_refuses_what_has_expired_already(admin: Caller) -> None:
    bucket = f"org_{admin.org_id}_short"
    assert admin.create(bucket, retention_seconds=3600).status_code == 201
    now = time.time_ns()
    hour = 3_600_000_000_000
    old, young, future = format_time(now - hour - 1), format_time(now - hour // 2), format_time(now + 20 * hour)
    answer = admin.write(point(timestamp=young), point(timestamp=old), bucket=bucket)
    assert (answer.status_code, list(details(answer))) == (422, ["/points/1/timestamp"])
    assert "retention" in details(answer)["/points/1/timestamp"]
    assert admin.rows(bucket=bucket) == []
    assert admin.write(point(timestamp=young), point(timestamp=future), bucket=bucket).status_code == 200
    assert [at for at, *_ in admin.rows(bucket=bucket)] == [young, future]


def test_who_may_write(app: Flask) -> None:
    assert app.test_client().post("/timeseries/write", json={"points": [point()]}).status_code == 401
