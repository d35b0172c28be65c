"""Bodies in either format: values, violations and what cannot be read."""

from datetime import datetime

import pytest

from heartguard.codec import MAX_VALUES, decode, encode, encode_error
from heartguard.errors import Invalid, Malformed, ServiceError
from heartguard.models.auth_token import LoginRequest, RegisterRequest
from heartguard.models.base import Request
from heartguard.models.common import Detail, Error
from heartguard.models.timeseries import Point, QueryRequest, WriteRequest, WriteResult
from heartguard.negotiation import Format
from heartguard.schema.numbers import BEYOND, as_double, number
from heartguard.schema.violations import MAX_VIOLATIONS

JSON, XML = Format.JSON, Format.XML


def violations(body: bytes, fmt: Format, type_: type) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        decode(body, fmt, type_)
    assert caught.value.status == 422
    return [(detail.path, detail.message) for detail in caught.value.details]


def test_a_body_means_the_same_in_both_formats() -> None:
    expected = Point(measurement="hr", fields={"bpm": 72.0, "ok": True, "note": "5"}, tags={"user_id": "1"})
    body = b'{"measurement":"hr","fields":{"bpm":72,"ok":true,"note":"5"},"tags":{"user_id":"1"}}'
    assert decode(body, JSON, Point) == expected
    body = (
        b"<Point><measurement>hr</measurement><fields><bpm>72</bpm><ok>true</ok>"
        b'<note type="string">5</note></fields><tags><user_id>1</user_id></tags></Point>'
    )
    assert decode(body, XML, Point) == expected


@pytest.mark.parametrize("number", ["5", "5.0", "0.5e1", "50E-1"])
def test_whole_floats_are_integers(number: str) -> None:
    """JSON Schema judges values, not spellings."""
    for fmt, body in (
        (JSON, f'{{"measurement":"a","limit":{number}}}'),
        (XML, f"<QueryRequest><measurement>a</measurement><limit>{number}</limit></QueryRequest>"),
    ):
        limit = decode(body.encode(), fmt, QueryRequest).limit
        assert limit == 5
        assert type(limit) is int


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ("1e400", "must be at most 100000"),
        ("-1e400", "must be at least 1"),
        ("9" * 400, "must be at most 100000"),
        ("5.5", "must be an integer"),
        ("0", "must be at least 1"),
    ],
)
def test_numbers_out_of_range(number: str, message: str) -> None:
    body = f'{{"measurement":"a","limit":{number}}}'.encode()
    assert violations(body, JSON, QueryRequest) == [("/limit", message)]
    body = f"<QueryRequest><measurement>a</measurement><limit>{number}</limit></QueryRequest>".encode()
    assert violations(body, XML, QueryRequest) == [("/limit", message)]


@pytest.mark.parametrize("number", ["1e309", "-1e309", "1" + "0" * 309])
def test_fields_must_be_finite(number: str) -> None:
    found = violations(f'{{"measurement":"a","fields":{{"x":{number}}}}}'.encode(), JSON, Point)
    body = f"<Point><measurement>a</measurement><fields><x>{number}</x></fields></Point>"
    assert violations(body.encode(), XML, Point) == found
    assert [path for path, _ in found] == ["/fields/x"]
    assert "1.7976931348623157e+308" in found[0][1]


@pytest.mark.parametrize(("digits", "read"), [(18, int), (19, float), (308, float), (309, int), (4000, int)])
def test_what_the_judge_sees_of_an_integer_is_never_long(digits: int, read: type) -> None:
    """For one of thousands of digits it takes milliseconds, and a body has room for thousands of those."""
    for text in ("9" * digits, "-" + "9" * digits):
        seen = number(text)
        assert type(seen) is read
        assert seen is not None
        assert abs(seen) <= BEYOND
        assert seen == as_double(int(text))
        assert violations(b'{"measurement":"a","limit":' + text.encode() + b"}", JSON, QueryRequest) == [
            ("/limit", "must be at least 1" if seen < 0 else "must be at most 100000")
        ]


@pytest.mark.parametrize("digits", [18, 19, 25, 308])
def test_long_integers_are_the_nearest_double_on_either_path(digits: int) -> None:
    text = "9" * digits
    for body in (f'"x":{text}', rf'"x":{text},"slow":"\\b"'):
        found = decode(f'{{"measurement":"a","fields":{{{body}}}}}'.encode(), JSON, Point).fields["x"]
        assert found == float(text)
        assert type(found) is float


def test_integers_of_very_many_digits_are_a_violation() -> None:
    body = b'{"measurement":"a","limit":' + b"9" * 5000 + b"}"
    assert violations(body, JSON, QueryRequest) == [("", "has an integer of more digits than can be read")]


def test_every_violation_is_named_in_both_formats() -> None:
    expected = {
        ("/email", "must be an e-mail address"),
        ("/password", "is missing"),
        ("/role", "must be one of admin, manager, user"),
        ("/first_name", "must be a name that is not blank"),
        ("/last_name", "must have at most 100 characters"),
        ("/nick", "nick is not known here"),
    }
    long = "x" * 101
    body = f'{{"email":"a","role":"boss","first_name":"","last_name":"{long}","nick":"n"}}'
    assert set(violations(body.encode(), JSON, RegisterRequest)) == expected
    body = (
        f"<RegisterRequest><email>a</email><role>boss</role><first_name/><last_name>{long}</last_name><nick>n</nick>"
        "</RegisterRequest>"
    )
    assert set(violations(body.encode(), XML, RegisterRequest)) == expected


def test_what_only_xml_can_get_wrong_is_named_together_with_the_schema() -> None:
    body = b"<WriteRequest><points><point><tags/><tags/><fields/></point></points></WriteRequest>"
    assert violations(body, XML, WriteRequest) == [
        ("/points/0/tags", "must not be repeated"),
        ("/points/0/measurement", "is missing"),
        ("/points/0/fields", "must not be empty"),
    ]


def test_no_value_is_ever_quoted() -> None:
    secret = "Secret123!x"
    for body in (
        f'{{"email":"{secret}","password":["{secret}"]}}',
        f'{{"email":{{"{secret}":1}},"password":"{secret}\\u0000"}}',
    ):
        for path, message in violations(body.encode(), JSON, LoginRequest):
            assert secret not in path + message


@pytest.mark.parametrize(
    "text",
    [r"\u0000", r"\ud83d\ude00\u0001", r"\u001F", r"\u000b", r"\ufffe", r"\uFfFF", r"\b", r"\f", "\ufffe", "\uffff"],
)
def test_strings_that_xml_cannot_carry_are_refused_in_json_too(text: str) -> None:
    found = violations(f'{{"measurement":"{text}","fields":{{"{text}":"{text}"}}}}'.encode(), JSON, Point)
    assert [message.removeprefix("its name ") for _, message in found] == [
        "must not have characters that XML cannot carry"
    ] * 3


def test_of_a_repeated_key_the_last_value_counts_and_a_repeated_element_is_a_violation() -> None:
    """The one difference between the formats; the documentation says so."""
    body = b'{"email":"a@b.co","password":"x","password":"y"}'
    assert decode(body, JSON, LoginRequest).password == "y"
    body = b"<LoginRequest><email>a@b.co</email><password>x</password><password>y</password></LoginRequest>"
    assert violations(body, XML, LoginRequest) == [("/password", "must not be repeated")]


def test_escapes_of_good_characters_are_good() -> None:
    assert decode(rb'{"email":"a@b.co","password":"\u00e9\ud83d\ude00\\b"}', JSON, LoginRequest).password == "é😀\\b"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"email":"a"} x',
        b"\xef\xbb\xbf{}",
        b'{"email":"\xff"}',
        b'{"email":"\xed\xa0\x80"}',
        rb'{"email":"\ud800"}',
        b'{"email":"\x00"}',
        b'{"email":NaN}',
        b'{"email":1,}',
        b'{"nick":"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        rb'{"email":"\u0000"',
    ],
)
def test_what_is_not_json_is_a_400(body: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        decode(body, JSON, LoginRequest)
    assert caught.value.status == 400
    assert len(caught.value.message) < 120


@pytest.mark.parametrize(("opening", "inside", "closing"), [("[", "", "]"), ('{"a":', "1", "}")])
@pytest.mark.parametrize(
    ("body", "path"),
    [
        ("%s", ""),
        ('{"points":%s}', "/points"),
        ('{"points":[%s]}', "/points/0"),
        ('{"points":[{"measurement":%s,"fields":{"x":1}}]}', "/points/0/measurement"),
        ('{"points":[{"measurement":"a","fields":%s}]}', "/points/0/fields"),
        ('{"points":[{"measurement":"a","fields":{"x":%s}}]}', "/points/0/fields/x"),
        ('{"points":[{"measurement":"a","fields":{"x":1},"tags":%s}]}', "/points/0/tags"),
        ('{"points":[{"measurement":"a","fields":{"x":1},"tags":{"x":%s}}]}', "/points/0/tags/x"),
        ('{"points":[{"measurement":"a","fields":{"x":1},"timestamp":%s}]}', "/points/0/timestamp"),
        ('{"points":[{"measurement":"a","fields":{"x":1},"more":%s}]}', "/points/0/more"),
        ('{"points":[{"measurement":"a","fields":{"x":1}}],"bucket":%s}', "/bucket"),
        ('{"points":[{"measurement":"a","fields":{"x":1}}],"more":%s}', "/more"),
        ('{"points":[{"measurement":"\\u0000","fields":{"x":1}}],"org":%s}', "/org"),
    ],
)
def test_json_nested_deeply_is_a_violation_wherever_it_is(
    body: str, path: str, opening: str, inside: str, closing: str
) -> None:
    for depth in (250, 500, 900):
        hostile = body % (opening * depth + inside + closing * depth)
        found = violations(hostile.encode(), JSON, WriteRequest)
        assert any(where == path or where.startswith(f"{path}/") for where, _ in found)
        assert len(found) < 5


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ("<WriteRequest>%s</WriteRequest>", "/a"),
        ("<WriteRequest><points>%s</points></WriteRequest>", "/points"),
        ("<WriteRequest><points><point>%s</point></points></WriteRequest>", "/points/0/a"),
        ("<WriteRequest><points><point><fields>%s</fields></point></points></WriteRequest>", "/points/0/fields/a"),
        ("<WriteRequest><bucket>%s</bucket></WriteRequest>", "/bucket"),
    ],
)
def test_xml_nested_deeply_is_a_violation_wherever_it_is(body: str, path: str) -> None:
    hostile = body % ("<a>" * 200 + "</a>" * 200)
    assert path in [where for where, _ in violations(hostile.encode(), XML, WriteRequest)]
    with pytest.raises(Malformed):
        decode((body % ("<a>" * 100_000 + "</a>" * 100_000)).encode(), XML, WriteRequest)


GOOD = '{"measurement":"a","fields":{"x":1}}'


@pytest.mark.parametrize(
    "body",
    [
        "{" + ",".join(f'"k{n}":1' for n in range(490_000)) + "}",
        '{"points":[' + GOOD.replace("}", ',"k":1}') + ",{" + ",".join(f'"k{n}":1' for n in range(480_000)) + "}]}",
        "{" + ",".join(f'"k{n}":1' for n in range(1_300_000)) + "}",
        '{"points":[' + "{}," * 245_000 + "1]}",
        '{"points":[' + (GOOD + ",") * 120_000 + "1]}",
        '{"points":[' + ('{"fields":{' + ",".join(f'"f{n}":1' for n in range(44)) + "}},") * 9_999 + "1]}",
        '{"points":[{"tags":{' + ",".join(f'"t{n}":[]' for n in range(240_000)) + "}}]}",
        '{"points":[' + ("9" * 4000 + ",") * 2000 + "1]}",
        '{"points":[' + ("[" * 400 + "]" * 400 + ",") * 15_000 + "1]}",
        '{"points":[{"measurement":"' + r"\u0001" * 2_000_000 + '"}]}',
        '{"bucket":"' + "a" * 16_000_000 + '"}',
        '{"' + "a" * 16_000_000 + '":1}',
    ],
    ids=["keys", "in-a-point", "more-keys", "empty", "many", "almost", "tags", "digits", "nested", "text", "long",
         "name"],
)  # fmt: skip
def test_hostile_bodies_are_refused_and_few_of_their_violations_told(body: str) -> None:
    with pytest.raises(ServiceError) as caught:
        decode(body.encode(), JSON, WriteRequest)
    assert caught.value.status in {413, 422}
    assert len(caught.value.details) <= MAX_VIOLATIONS


def test_hostile_documents_are_refused_and_few_of_their_violations_told() -> None:
    for body in (
        "<WriteRequest><points>" + '<point a="1" b="2" c="3"/>' * 490_000 + "</points></WriteRequest>",
        "<WriteRequest>" + "".join(f"<k{n}/>" for n in range(490_000)) + "</WriteRequest>",
        "<!---->" * 2_000_000 + "<WriteRequest/>",
    ):
        with pytest.raises(ServiceError) as caught:
            decode(body.encode(), XML, WriteRequest)
        assert caught.value.status in {413, 422}
        assert len(caught.value.details) <= MAX_VIOLATIONS


class Meeting(Request):
    at: datetime


def test_what_only_the_decoder_refuses_is_a_violation_all_the_same() -> None:
    """RFC 3339 has leap seconds, Python has none."""
    assert decode(b'{"at":"2016-12-31T23:59:59Z"}', JSON, Meeting).at.second == 59
    ((path, message),) = violations(b'{"at":"2016-12-31T23:59:60Z"}', JSON, Meeting)
    assert path == ""
    assert "$.at" in message


@pytest.mark.parametrize("value", [b"1,", b"[],", b"{},", b"[[]],"])
def test_a_body_too_large_to_be_explained_is_a_413(value: bytes) -> None:
    with pytest.raises(ServiceError) as caught:
        decode(b'{"points":[' + value * MAX_VALUES + b"1]}", JSON, WriteRequest)
    assert caught.value.status == 413


def test_a_good_body_needs_no_explaining_however_many_values_it_has() -> None:
    point = '{"measurement":"\\u00e9","fields":{' + ",".join(f'"f{n}":1' for n in range(256)) + "}}"
    body = f'{{"points":[{",".join([point] * (MAX_VALUES // 250))}]}}'
    assert len(decode(body.encode(), JSON, WriteRequest).points) == MAX_VALUES // 250


def test_answers() -> None:
    answer = WriteResult(success=True, inserted=1)
    assert encode(answer, JSON) == b'{"success":true,"inserted":1}'
    assert encode(answer, XML).endswith(b"<WriteResult><success>true</success><inserted>1</inserted></WriteResult>")


def test_errors_stand_under_a_key_in_json_and_are_the_root_in_xml() -> None:
    error = Error(code="TS_404", message="no", request_id="r", details=[Detail(path="", message="m")])
    assert encode_error(error, JSON) == (
        b'{"error":{"code":"TS_404","message":"no","request_id":"r","details":[{"path":"","message":"m"}]}}'
    )
    assert encode_error(error, XML).endswith(b"</details></Error>")
