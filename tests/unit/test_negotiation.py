"""Which format is asked for, and which one is sent."""

import pytest

from heartguard.errors import ServiceError
from heartguard.negotiation import Format, format_of, negotiate


@pytest.mark.parametrize(
    ("accept", "fmt"),
    [
        (None, Format.JSON),
        ("", Format.JSON),
        ("*/*", Format.JSON),
        ("application/*", Format.JSON),
        ("application/json", Format.JSON),
        ("APPLICATION/JSON", Format.JSON),
        ("application/json; charset=utf-8", Format.JSON),
        ("application/xml", Format.XML),
        ("text/xml", Format.XML),
        ("text/*", Format.XML),
        ("application/xml, application/json", Format.JSON),
        ("application/json;q=0.5, application/xml;q=0.5", Format.JSON),
        ("application/json;q=0.5, application/xml;q=0.6", Format.XML),
        ("application/json;q=0.5, text/xml", Format.XML),
        ("application/xml, */*;q=0.1", Format.XML),
        ("application/json;q=0, */*", Format.XML),
        ("application/json;q=0, application/*;q=0.1", Format.XML),
        ("application/xml;q=0.9, */*;q=0.8", Format.XML),
        ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", Format.XML),
        ("text/html, */*;q=0.8", Format.JSON),
        ("text/html", None),
        ("image/png, text/plain", None),
        ("*/*;q=0", None),
        ("application/json;q=0", None),
        ("application/json;q=0, application/xml;q=0, text/xml;q=0, */*", None),
        ("application/jsonp", None),
        ("application/json;q=nonsense, application/xml;q=0.5", Format.XML),
    ],
)
def test_accept(accept: str | None, fmt: Format | None) -> None:
    assert negotiate(accept) is fmt


@pytest.mark.parametrize(
    ("header", "fmt"),
    [
        ("application/json", Format.JSON),
        ("Application/JSON; charset=UTF-8", Format.JSON),
        ('application/json; charset="utf8"', Format.JSON),
        ("application/xml", Format.XML),
        ("text/xml;charset=utf-8", Format.XML),
    ],
)
def test_content_type(header: str, fmt: Format) -> None:
    assert format_of(header) is fmt


@pytest.mark.parametrize(
    "header",
    [None, "", "json", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1",
     "text/xml; charset=utf-16", "application/xml+json", "application/soap+xml"],
)  # fmt: skip
def test_other_content_types_are_a_415(header: str | None) -> None:
    with pytest.raises(ServiceError) as caught:
        format_of(header)
    assert caught.value.status == 415


def test_too_long_a_wish_is_none() -> None:
    assert negotiate("application/xml" + ", text/html" * 100) is Format.JSON
    assert negotiate("application/xml" + ", text/html" * 90) is Format.XML
