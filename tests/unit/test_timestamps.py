"""Times: RFC 3339 to nanoseconds and back, moments, windows."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartguard.models.base import TIMESTAMP
from heartguard.timestamps import REMEMBERED, parse_time, parse_times
from services.influx.src.times import (
    MAX_TIME,
    MIN_TIME,
    SECOND,
    format_time,
    parse_duration,
    parse_moment,
    window_stop,
)

times = st.integers(MIN_TIME, MAX_TIME)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("2024-06-01T10:00:00Z", 1_717_236_000 * SECOND),
        ("2024-02-29T23:59:59.5Z", 1_709_251_199 * SECOND + 500_000_000),
        ("1678-01-01T00:00:00Z", MIN_TIME),
        ("2261-12-31T23:59:59.999999999Z", MAX_TIME),
    ],
)
def test_times_known(text: str, nanoseconds: int) -> None:
    assert parse_time(text) == nanoseconds
    assert format_time(nanoseconds) == text


@pytest.mark.parametrize(
    "text", ["2024-06-01T10:00:00+00:00", "2024-06-01T10:00:00.000-00:00", "2024-06-01T10:00:00.0Z"]
)
def test_all_spellings_of_utc_are_the_same_time(text: str) -> None:
    assert parse_time(text) == parse_time("2024-06-01T10:00:00Z")


@given(times)
def test_formatting_and_parsing_are_inverse(nanoseconds: int) -> None:
    text = format_time(nanoseconds)
    assert parse_time(text) == nanoseconds
    assert re.fullmatch(TIMESTAMP, text)


@given(times)
def test_formatting_agrees_with_the_standard_library(nanoseconds: int) -> None:
    whole = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)
    assert datetime.fromisoformat(format_time(nanoseconds // 1000 * 1000)) == whole


@given(st.lists(times, min_size=2, max_size=2))
def test_the_order_of_times_without_fraction_is_that_of_their_texts(pair: list[int]) -> None:
    one, other = (nanoseconds // SECOND * SECOND for nanoseconds in pair)
    assert (one < other) == (format_time(one) < format_time(other))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800), ("999999999d", 86_399_999_913_600)]
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds * SECOND


def test_moments() -> None:
    now = parse_time("2024-06-01T10:00:00.000000001Z")
    assert parse_moment("now()", now) == now
    assert parse_moment("-0s", now) == now
    assert parse_moment("-1h", now) == parse_time("2024-06-01T09:00:00.000000001Z")
    assert parse_moment("-999999999d", now) == MIN_TIME
    assert parse_moment("2024-01-01T00:00:00Z", now) == parse_time("2024-01-01T00:00:00Z")


def test_a_window_ends_with_the_range_at_the_latest() -> None:
    assert window_stop(2, 60, 1000) == 180
    assert window_stop(2, 60, 170) == 170
    assert window_stop(-1, 60, 1000) == 0


@given(st.one_of(st.from_regex(TIMESTAMP, fullmatch=True), st.from_regex(TIMESTAMP), st.text(max_size=30)))
def test_what_is_parsed_is_what_the_published_pattern_lets_pass(text: str) -> None:
    if re.fullmatch(TIMESTAMP, text):
        assert parse_times([text]) == [parse_time(text)]
    else:
        with pytest.raises(ValueError, match="is no time"):
            parse_times([text])


def test_what_is_remembered_of_times_is_bounded() -> None:
    """Three times as many as are kept, each found again."""
    for nanoseconds in range(1, 3 * REMEMBERED):
        assert parse_time(format_time(nanoseconds)) == nanoseconds
    for minute in range(3 * REMEMBERED):
        assert parse_time(format_time(minute * 60 * SECOND)) == minute * 60 * SECOND
