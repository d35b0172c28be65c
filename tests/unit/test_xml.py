"""The XML mapping of section 1 of the contract, out and in, and what is done to hostile documents."""

import resource
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from lxml import etree

from heartguard import xml
from heartguard.errors import Invalid, Malformed, ServiceError
from heartguard.models.auth_token import LoginRequest, Profile, RegisterResponse
from heartguard.models.base import Answer
from heartguard.models.common import Detail, Error
from heartguard.models.timeseries import Point, QueryRequest, QueryResult, Result, WriteRequest
from heartguard.xml.document import MAX_ELEMENTS
from heartguard.xml.reader import MAX_FOUND


class Kinds(Answer):
    """One of each kind of value."""

    flags: list[bool] = []
    free: dict[str, Any] = {}
    ratio: float = 0.5
    when: datetime = datetime(2024, 6, 1, 10, tzinfo=UTC)


def read(text: str, type_: type = Point) -> Any:
    plain, found = xml.parse(text.encode(), type_)
    assert found == []
    return plain


def found_in(text: str, type_: type = Point) -> list[tuple[str, str]]:
    return [(detail.path, detail.message) for detail in xml.parse(text.encode(), type_)[1]]


def fields(inside: str) -> Any:
    return read(f"<Point><fields>{inside}</fields></Point>")["fields"]


# Out


def test_an_answer_is_written_as_the_contract_shows() -> None:
    answer = RegisterResponse(user_id=2, email="user@hg.io", role="user", org_id=1)
    assert xml.dumps(answer) == (
        b'<?xml version="1.0" encoding="UTF-8"?>\n'
        b"<RegisterResponse><user_id>2</user_id><email>user@hg.io</email><role>user</role><org_id>1</org_id>"
        b"</RegisterResponse>"
    )


def test_lists_hold_elements_named_in_the_singular() -> None:
    error = Error(code="TS_422", message="no", request_id="r", details=[Detail(path="/a", message="is missing")])
    assert xml.dumps(error).endswith(
        b"<details><detail><path>/a</path><message>is missing</message></detail></details></Error>"
    )


def test_absent_properties_are_left_out() -> None:
    profile = Profile(id=1, email="a@b.co", role="user", org_id=1, created_at=datetime(2024, 6, 1, 10, tzinfo=UTC))
    assert b"<created_at>2024-06-01T10:00:00Z</created_at></Profile>" in xml.dumps(profile)


@pytest.mark.parametrize(
    ("value", "element"),
    [
        (True, "<x>true</x>"),
        (5, "<x>5</x>"),
        (5.0, "<x>5.0</x>"),
        (1e22, "<x>1e22</x>"),
        (1e-7, "<x>1e-7</x>"),
        (-0.0, "<x>-0.0</x>"),
        ("a", "<x>a</x>"),
        ("5", '<x type="string">5</x>'),
        ("\n-1.5e3 ", '<x type="string">\n-1.5e3 </x>'),
        ("true", '<x type="string">true</x>'),
        ("05", "<x>05</x>"),
        ("", "<x></x>"),
        ("NaN", "<x>NaN</x>"),
        ("<&>\r\"'", "<x>&lt;&amp;&gt;&#13;\"'</x>"),
    ],
)
def test_in_a_mixed_map_the_text_or_else_an_attribute_tells_the_type(value: Any, element: str) -> None:
    document = xml.dumps(Kinds(free={"x": value}))
    assert f"<free>{element}</free>" in document.decode()
    again = read(document.decode(), Kinds)["free"]["x"]
    assert repr(again) == repr(value)


@pytest.mark.parametrize(
    ("key", "start"),
    [
        ("bpm", "<bpm>"),
        ("é", "<é>"),
        ("a-b.c_1", "<a-b.c_1>"),
        ("entry", "<entry>"),
        ("a b", '<entry key="a b">'),
        ("", '<entry key="">'),
        ("1st", '<entry key="1st">'),
        ("x:y", '<entry key="x:y">'),
        ("<\"'&\t\r\n", '<entry key="&lt;&quot;\'&amp;&#9;&#13;&#10;">'),
    ],
)
def test_a_key_that_is_no_name_becomes_an_attribute(key: str, start: str) -> None:
    document = xml.dumps(Kinds(free={key: "v"})).decode()
    assert start in document
    assert read(document, Kinds)["free"] == {key: "v"}


def test_what_xml_cannot_carry_is_replaced() -> None:
    result = Result(time="\x00", field="\ud800", value="a\ufffeb\x1b", tags={"\x01": "\x7f"})
    plain = read(xml.dumps(QueryResult(results=[result], count=1)).decode(), QueryResult)
    assert plain["results"] == [
        {"time": "\ufffd", "field": "\ufffd", "value": "a\ufffdb\ufffd", "tags": {"\ufffd": "\x7f"}}
    ]


def test_a_type_the_mapping_has_no_word_for_is_refused_at_once() -> None:
    class Sheep(Answer):
        sheep: list[str]

    class Raw(Answer):
        raw: bytes

    class Null(Answer):
        null: str | None

    with pytest.raises(TypeError, match="plural"):
        xml.dumps(Sheep(sheep=[]))
    with pytest.raises(TypeError, match="no scalar"):
        xml.parse(b"<Raw/>", Raw)
    with pytest.raises(TypeError, match="no scalar"):
        xml.parse(b"<Null/>", Null)


# In


def test_scalars_are_read_by_the_schema() -> None:
    query = read("<QueryRequest><measurement>5</measurement><limit> 5\n</limit></QueryRequest>", QueryRequest)
    assert query == {"measurement": "5", "limit": 5}
    kinds = read("<Kinds><flags><flag>true</flag><flag>\tfalse</flag></flags><ratio>1e2</ratio></Kinds>", Kinds)
    assert kinds == {"flags": [True, False], "ratio": 100.0}


@pytest.mark.parametrize("text", ["+5", "05", "5.", ".5", "0x5", "NaN", "INF", "1_000", "٥", "\u00a05", "5 5", ""])
def test_text_that_is_no_json_number_stays_text(text: str) -> None:
    assert read(f"<QueryRequest><limit>{text}</limit></QueryRequest>", QueryRequest) == {"limit": text}


@pytest.mark.parametrize("text", ["1e400", "-1e400", "9" * 5000, "-" + "9" * 5000])
def test_a_number_beyond_doubles_stays_a_number(text: str) -> None:
    value = fields(f"<x>{text}</x>")["x"]
    assert isinstance(value, int)
    assert abs(value) > 10**308


def test_strings_are_kept_exactly() -> None:
    text = "<LoginRequest><email/><password> \t a<!-- b --><![CDATA[ <c> ]]>&#13;&amp;\n</password></LoginRequest>"
    assert read(text, LoginRequest) == {"email": "", "password": " \t a <c> \r&\n"}


def test_white_space_and_comments_between_elements_mean_nothing() -> None:
    text = (
        "\n <!-- a --> <Point>\n <!-- b -->\n\t<tags>\r\n<a>1</a>\n</tags> <fields> </fields>\n</Point>\n<!-- c -->\n"
    )
    assert read(text) == {"tags": {"a": "1"}, "fields": {}}


def test_mixed_values() -> None:
    inside = '<a>5</a><b>true</b><c>x</c><d type="string">5</d><e type="number"> 5.5 </e><f type="boolean">false</f>'
    assert fields(inside) == {"a": 5, "b": True, "c": "x", "d": "5", "e": 5.5, "f": False}


def test_entries() -> None:
    assert fields('<entry key="a b">1</entry><entry>2</entry><entry key="c" type="string">3</entry>') == {
        "a b": 1,
        "entry": 2,
        "c": "3",
    }


def test_what_is_no_text_or_no_elements_is_left_for_the_schema_to_judge() -> None:
    assert read("<Point><measurement><a/></measurement><fields><x><y/></x></fields><tags>x</tags><zz/></Point>") == {
        "measurement": {},
        "fields": {"x": {}},
        "tags": "x",
        "zz": "",
    }
    assert read("<WriteRequest><points> x</points></WriteRequest>", WriteRequest) == {"points": " x"}
    assert read("<Point>x</Point>") == "x"


@pytest.mark.parametrize(
    ("text", "violations"),
    [
        ("<Pont/>", [("", "the root element must be named Point")]),
        ('<Point a="1"/>', [("", "must not have the attribute a")]),
        ("<Point>x<tags/>y</Point>", [("", "must not have text between its elements")] * 2),
        ("<Point><tags/><tags/></Point>", [("/tags", "must not be repeated")]),
        ('<Point><tags><a/><entry key="a"/></tags></Point>', [("/tags/a", "must not be repeated")]),
        ('<Point><tags><entry key="a/b~"/>x</tags></Point>', [("/tags", "must not have text between its elements")]),
        ('<Point><tags><a type="string"/></tags></Point>', [("/tags/a", "must not have the attribute type")]),
        ('<Point><tags><a key="b"/></tags></Point>', [("/tags/a", "must not have the attribute key")]),
        (
            '<Point><fields><entry key="a/~" b=""/></fields></Point>',
            [("/fields/a~1~0", "must not have the attribute b")],
        ),
        (
            '<Point><fields><a type="number">x</a><b type="int">1</b></fields></Point>',
            [
                ("/fields/a", "must be a number, as its attribute type says"),
                ("/fields/b", "must have one of string, number, boolean as its attribute type"),
            ],
        ),
        (
            '<Point xmlns="urn:x"><tags/></Point>',
            [
                ("", "must not have elements in a namespace, such as Point"),
                ("", "must not have elements in a namespace, such as tags"),
            ],
        ),
        (
            '<Point xmlns:q="urn:x"><tags><q:a/></tags></Point>',
            [("/tags", "must not have elements in a namespace, such as a")],
        ),
        (
            '<Point xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:nil="true"/>',
            [("", "must not have the attribute {http://www.w3.org/2001/XMLSchema-instance}nil")],
        ),
    ],
)
def test_what_only_xml_can_get_wrong(text: str, violations: list[tuple[str, str]]) -> None:
    assert found_in(text) == violations


def test_violations_in_lists_name_the_item() -> None:
    text = "<WriteRequest><points><point/><pint/><point><tags/><tags/></point></points></WriteRequest>"
    assert found_in(text, WriteRequest) == [
        ("/points", "must hold elements named point only"),
        ("/points/1/tags", "must not be repeated"),
    ]


def test_the_violations_of_a_document_are_bounded() -> None:
    """Beyond them nothing is read, however long the document is."""
    with pytest.raises(Invalid) as caught:
        found_in("<Point>" + "<tags/>" * 5000 + "</Point>")
    assert [detail.path for detail in caught.value.details] == ["/tags"] * MAX_FOUND


def test_names_in_violations_are_bounded() -> None:
    ((path, message),) = found_in(f'<Point><tags><entry key="{"k" * 5000}" {"a" * 5000}=""/></tags></Point>')
    assert len(path) < 150
    assert len(message) < 150


def test_a_declaration_and_a_byte_order_mark_are_fine() -> None:
    assert read('\ufeff<?xml version="1.0" encoding="utf-8" standalone="yes"?>\n<Point/>') == {}


# Hostile documents

BILLION_LAUGHS = (
    "<!DOCTYPE Point [<!ENTITY a0 'ha'>"
    + "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10))
    + "]><Point><measurement>&a9;</measurement></Point>"
)
EXTERNAL = '<!DOCTYPE Point [<!ENTITY x SYSTEM "file:///etc/hostname">]><Point><measurement>&x;</measurement></Point>'


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "x",
        "<Point>",
        "<Point></Pont>",
        "<Point/><Point/>",
        "<Point a='1' a='2'/>",
        "<Point><x:y/></Point>",
        "<Point>&nbsp;</Point>",
        "<Point>&#0;</Point>",
        "<Point>\x01</Point>",
        "<Point>&#xD800;</Point>",
        "<!-- -- --><Point/>",
        BILLION_LAUGHS,
        EXTERNAL,
        f"<?xml version='1.0'?><!-- x -->{EXTERNAL}",
        '<!DOCTYPE Point SYSTEM "http://127.0.0.1:9/x.dtd"><Point/>',
        "<!DOCTYPE Point><Point/>",
        "<?php echo 1 ?><Point/>",
        '<?xml-stylesheet href="x.xsl"?><Point/>',
        "<Point><?x?></Point>",
        "<Point><tags><a>b<?x?>c</a></tags></Point>",
        "<Point/><?x?>",
        "<Point/><!-- a --><?x?><!-- b -->",
        " <?xml version='1.0'?><Point/>",
        "<a>" * 100_000,
        "<a>" * 100_000 + "</a>" * 100_000,
        "<!--" + "-a" * 100_000,
        "<Point " + " ".join(f"a{n}=''" for n in range(100_000)) + "/>x",
    ],
    ids=lambda text: text[:40],
)
def test_what_is_not_well_formed_or_not_allowed_is_a_400(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        xml.parse(text.encode(), Point)
    assert caught.value.status == 400
    assert len(caught.value.message) < 100


@pytest.mark.parametrize("body", [b"<Point>\xff</Point>", "<Point/>".encode("utf-16"), b"<Point>\xed\xa0\x80</Point>"])
def test_other_encodings_are_not_guessed(body: bytes) -> None:
    with pytest.raises(Malformed):
        xml.parse(body, Point)


def test_another_declared_encoding_is_a_415() -> None:
    with pytest.raises(ServiceError) as caught:
        xml.parse(b'<?xml version="1.0" encoding="ISO-8859-1"?><Point/>', Point)
    assert caught.value.status == 415


def test_messages_do_not_quote_the_body() -> None:
    with pytest.raises(Malformed) as caught:
        xml.parse(b"<LoginRequest><password>hunter2</hunter2></LoginRequest>", LoginRequest)
    assert "hunter2" not in caught.value.message
    assert "line 1, column" in caught.value.message


def test_hostile_documents_take_little_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for body in (BILLION_LAUGHS.encode(), b"<a>" * 1_000_000, b"<Point>" + b"<a/>" * 4_000_000):
        with pytest.raises(ServiceError):
            xml.parse(body, Point)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_more_elements_than_memory_should_hold_are_a_413() -> None:
    with pytest.raises(ServiceError) as caught:
        xml.parse(b"<Point>" + b"<a/>" * MAX_ELEMENTS + b"</Point>", Point)
    assert caught.value.status == 413


def test_ten_thousand_points_survive_the_round_trip() -> None:
    points = [Point(measurement="hr", fields={"bpm": 60.5 + n, "s": "5"}, tags={"a b": str(n)}) for n in range(10_000)]
    request = WriteRequest(points=points)
    plain, found = xml.parse(xml.dumps(request), WriteRequest)
    assert found == []
    assert msgspec.convert(plain, WriteRequest) == request


def test_names_are_those_that_the_parser_reads() -> None:
    """Every character of the Basic Multilingual Plane, where libxml2 knows best what a name may begin with."""
    for code in [*range(0x21, 0xD800), *range(0xE000, 0xFFFE), 0x10000, 0xEFFFF, 0xF0000]:
        character = chr(code)
        document = xml.dumps(Kinds(free={character: "", f"a{character}": ""}))
        try:
            etree.QName(character)
            named = character != ":"
        except ValueError:
            named = False
        assert (f"<{character}>".encode() in document) is named, hex(code)
    # (that the parser reads all of them back is the property test's business)
