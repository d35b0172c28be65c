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
        ("/points/0/fields", "must be a name that is not blank"),
    ]


def test_no_value_is_ever_quoted() -> None:
    secret = "Secret123!x"
    for body in (
        f'{{"email":"{secret}","password":["{secret}"]}}',
        f'{{"email":{{"{secret}":1}},"password":"{secret}\\u0000"}}',
    ):
        for path, message in violations(body.encode(), JSON, LoginRequest):
            assert secret not in path + message


@pytest.mark.parametrize("text", [r"\u0000", r"\ud83d\ude00\u0001", r"\b", r"\f", "\ufffe", "\uffff"])
def test_strings_that_xml_cannot_carry_are_refused_in_json_too(text: str) -> None:
    found = violations(f'{{"measurement":"{text}","fields":{{"{text}":"{text}"}}}}'.encode(), JSON, Point)
    assert [message.removeprefix("its name ") for _, message in found] == [
        "must not have characters that XML cannot carry"
    ] * 3


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


class Meeting(Request):
    at: datetime


def test_what_only_the_decoder_refuses_is_a_violation_all_the_same() -> None:
    """RFC 3339 has leap seconds, Python has none."""
    assert decode(b'{"at":"2016-12-31T23:59:59Z"}', JSON, Meeting).at.second == 59
    ((path, message),) = violations(b'{"at":"2016-12-31T23:59:60Z"}', JSON, Meeting)
    assert path == ""
    assert "$.at" in message


def test_a_body_too_large_to_be_explained_is_a_413() -> None:
    with pytest.raises(ServiceError) as caught:
        decode(b'{"points":[' + b"1," * (MAX_VALUES + 1) + b"1]}", JSON, WriteRequest)
    assert caught.value.status == 413


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
