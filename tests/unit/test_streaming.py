"""A body that is decoded as it comes means, and is judged, just the same as one that is read whole."""

import base64
import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lxml import etree

from heartguard import codec
from heartguard.errors import Invalid, Malformed, ServiceError
from heartguard.models.media_item import MediaUpload
from heartguard.negotiation import Format
from heartguard.streaming import decode_stream
from heartguard.streaming.base64_text import MAX_REST

JSON, XML = Format.JSON, Format.XML
OFTEN = settings(
    max_examples=500, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


class Collected:
    def __init__(self) -> None:
        self.content = b""

    def write(self, piece: bytes) -> None:
        self.content += piece

    def restart(self) -> None:
        self.content = b""


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    return (body[position : position + size] for position in range(0, len(body), size))


def streamed(body: bytes, fmt: Format, size: int) -> tuple[object, ...]:
    """What comes of a body in pieces of that size: name, type and content; or the status and the paths at fault."""
    sink = Collected()
    try:
        value = decode_stream(pieces(body, size), fmt, MediaUpload, "data_base64", sink)
    except ServiceError as error:
        return error.status, sorted({detail.path for detail in error.details})
    return value.file_name, value.content_type, sink.content


def whole(body: bytes, fmt: Format) -> tuple[object, ...]:
    """The same of a body that is read whole."""
    try:
        value = codec.decode(body, fmt, MediaUpload)
    except ServiceError as error:
        return error.status, sorted({detail.path for detail in error.details})
    return value.file_name, value.content_type, base64.b64decode(value.data_base64)


texts = st.one_of(
    st.binary(max_size=40).map(lambda content: base64.b64encode(content).decode()),
    st.text('AZaz09+/=\\"\n\t é\u2028😀\x00-_', max_size=12),
)
values = st.one_of(
    texts, st.none(), st.integers(), st.lists(texts, max_size=2), st.dictionaries(texts, texts, max_size=2)
)
names = st.sampled_from(["file_name", "content_type", "data_base64", "data_base64", "data\\base64", "more", ""])


@st.composite
def objects(draw: st.DrawFn) -> str:
    """JSON objects, with properties in any order, doubled or missing, and written in various ways."""
    properties = draw(st.lists(st.tuples(names, values), max_size=5))
    if draw(st.booleans()):
        good = {"file_name": "a.png", "content_type": "image/png", "data_base64": draw(texts)}
        properties += good.items()
    properties = draw(st.permutations(properties))
    space = draw(st.sampled_from(["", " ", "\n\t"]))
    ascii_ = draw(st.booleans())
    written = []
    for name, value in properties:
        text = json.dumps(value, ensure_ascii=ascii_)
        if draw(st.booleans()):
            text = text.replace("/", "\\/")
        if draw(st.booleans()):
            text = text.replace("A", "\\u0041")
        written.append(f"{space}{json.dumps(name)}{space}:{space}{text}{space}")
    return "{" + ",".join(written) + "}"


@OFTEN
@given(body=objects(), size=st.sampled_from([1, 2, 3, 5, 7, 64]), cut=st.sampled_from([0, 0, 0, 1, 5]))
@example('{"data_base64": "QUJD", "data_base64": "REVG", "file_name": "a", "content_type": "a/b"}', 1, 0)
@example('{"data_base64": "QUJD", "data_base64": 5, "file_name": "a", "content_type": "a/b"}', 1, 0)
@example('{"data\\u005fbase64": "QUJD", "file_name": "a", "content_type": "a/b"}', 1, 0)
@example('{"more": {"data_base64": "QUJD"}, "file_name": "a", "content_type": "a/b"}', 1, 0)
@example('[{"data_base64": "QUJD"}]', 1, 0)
@example('"data_base64"', 1, 0)
def test_json(body: str, size: int, cut: int) -> None:
    sent = body.encode()[: len(body.encode()) - cut]
    assert streamed(sent, JSON, size) == whole(sent, JSON)


@pytest.mark.parametrize(
    "text", [b"\\x", b"\\u12", b"\\u12G4", b"\xff", b"\xc3", b"\x01", b"QUJD\n", b"QUJD\\", b"\xed\xa0\x80"]
)
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_what_no_string_of_json_may_hold(text: bytes, size: int) -> None:
    sent = b'{"file_name": "a", "content_type": "a/b", "data_base64": "' + text + b'"}'
    assert streamed(sent, JSON, size) == whole(sent, JSON) == (400, [])


@OFTEN
@given(
    children=st.lists(
        st.tuples(st.sampled_from(["file_name", "content_type", "data_base64", "more"]), texts), max_size=4
    ),
    good=st.booleans(),
    size=st.sampled_from([1, 3, 64]),
    cut=st.sampled_from([0, 0, 1, 5]),
    cdata=st.booleans(),
)
def test_xml(children: list[tuple[str, str]], good: bool, size: int, cut: int, cdata: bool) -> None:
    root = etree.Element("MediaUpload")
    if good:
        children = [("file_name", "a"), ("content_type", "a/b"), *children]
    for name, text in children:
        text = "".join(character for character in text if character != "\x00")
        etree.SubElement(root, name).text = etree.CDATA(text) if cdata else text
    written = etree.tostring(root, encoding="utf-8")
    sent = written[: len(written) - cut]
    assert streamed(sent, XML, size) == whole(sent, XML)


@pytest.mark.parametrize(
    "body",
    [
        "",
        " ",
        "<MediaUpload/>",
        "<Upload/>",
        "<MediaUpload><data_base64>QUJD<b/></data_base64></MediaUpload>",
        "<MediaUpload><more><data_base64>QUJD</data_base64></more></MediaUpload>",
        "<MediaUpload><data_base64 a='b'>QUJD</data_base64></MediaUpload>",
        "<MediaUpload xmlns='urn:x'><data_base64>QUJD</data_base64></MediaUpload>",
        "<MediaUpload>text<data_base64>QU<!-- comment -->JD</data_base64></MediaUpload>",
        "<MediaUpload><data_base64>QU&#74;D</data_base64></MediaUpload>",
        "<MediaUpload><data_base64>QU&unknown;D</data_base64></MediaUpload>",
        "<!DOCTYPE a><MediaUpload/>",
        "<?xml version='1.0' encoding='latin-1'?><MediaUpload/>",
        "<?style x?><MediaUpload/>",
        "<MediaUpload><?style x?></MediaUpload>",
        "<MediaUpload/><?style x?>",
        "<MediaUpload/><MediaUpload/>",
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_xml_of_all_kinds(body: str, size: int) -> None:
    assert streamed(body.encode(), XML, size) == whole(body.encode(), XML)


def test_a_root_that_does_not_begin() -> None:
    body = b"<!--" + b" " * 100_000 + b"--><MediaUpload/>"
    assert streamed(body, XML, 1000) == (400, [])


@pytest.mark.parametrize("name", ["file_name", "more"])
def test_what_is_large_besides_the_property(name: str) -> None:
    body = {"file_name": "a", "content_type": "a/b", "data_base64": "QUJD", name: "x" * (MAX_REST + 1)}
    as_xml = "".join(f"<{key}>{value}</{key}>" for key, value in body.items())
    with pytest.raises(ServiceError) as refused:
        decode_stream(pieces(json.dumps(body).encode(), 4096), JSON, MediaUpload, "data_base64", Collected())
    assert refused.value.status == 413
    with pytest.raises(ServiceError) as refused:
        decode_stream(
            pieces(f"<MediaUpload>{as_xml}</MediaUpload>".encode(), 4096), XML, MediaUpload, "data_base64", Collected()
        )
    assert refused.value.status == 413


@pytest.mark.parametrize("fmt", [JSON, XML])
def test_what_the_sink_refuses_is_what_is_heard(fmt: Format) -> None:
    class Full(Collected):
        def write(self, piece: bytes) -> None:
            raise ServiceError(413, "full")

    body = b'{"data_base64": "QUJD"}' if fmt is JSON else b"<MediaUpload><data_base64>QUJD</data_base64></MediaUpload>"
    with pytest.raises(ServiceError, match="full"):
        decode_stream([body], fmt, MediaUpload, "data_base64", Full())


def test_nothing_large_is_kept() -> None:
    """Ten megabytes of text go by; what is left of the body fits into a line."""
    text = base64.b64encode(bytes(range(256)) * 4096)
    sink = Collected()
    body = b'{"data_base64": "' + text + b'", "file_name": "a", "content_type": "a/b"}'
    value = decode_stream(pieces(body, 65_536), JSON, MediaUpload, "data_base64", sink)
    assert (len(value.data_base64), len(sink.content)) == (4, 1024 * 1024)


def test_violations_of_both_kinds_are_named() -> None:
    with pytest.raises(Invalid) as invalid:
        decode_stream([b'{"data_base64": "#", "more": 1}'], JSON, MediaUpload, "data_base64", Collected())
    assert [detail.path for detail in invalid.value.details] == ["/file_name", "/content_type", "/more", "/data_base64"]


def test_an_empty_body_is_none() -> None:
    for fmt in Format:
        with pytest.raises(Malformed):
            decode_stream([], fmt, MediaUpload, "data_base64", Collected())
