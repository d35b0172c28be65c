"""The look at line protocol in bulk: whatever it lets through is good line by line, and means the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartguard.models.common import Detail
from services.influx.src.line_kinds import Survey, survey_by_kind
from services.influx.src.line_protocol import parse
from services.influx.src.points import Rules
from services.influx.src.store import TYPES
from services.influx.src.survey import survey, survey_by_part
from services.influx.src.times import MIN_TIME

ANYBODY = Rules(user_id=None, oldest=MIN_TIME, received=5)
SEVEN = Rules(user_id="7", oldest=MIN_TIME, received=5)


def test_plain_lines() -> None:
    lines = b"m,t=v f=1,g=2i 5\nm f=-1.5,g=3i 6\nn b=t 7\nn b=false 8"
    assert survey(lines, 1, ANYBODY) == Survey(4, 6, {"m": {"f": "float", "g": "integer"}, "n": {"b": "boolean"}})
    assert survey(b"m,user_id=7 f=1 5\n", 10**9, SEVEN) == Survey(1, 1, {"m": {"f": "float"}})


NOT_PLAIN = {
    "empty": "", "a comment": "# m f=1 1\nm f=1 2", "no time": "m f=1 1\nm f=1", "a string": 'm f="x" 1',
    "an escape": "m\\ x f=1 1", "an exponent": "m f=1e5 1", "unsigned": "m f=1u 1", "blanks": "m  f=1 1",
    "carriage returns": "m f=1 1\r\n", "a number too long": f"m f={'1' * 400} 1", "no fields": "m 1",
    "a reserved name": "_m f=1 1", "a reserved field": "m time=1 1", "a tag twice": "m,t=a,t=b f=1 1",
    "an empty tag": "m,t= f=1 1", "a field twice": "m f=1,f=2 1", "two types": "m f=1 1\nm,t=a f=2i 2",
    "before 1970": "m f=1 -1", "lines run together": "m f=1 1 m f=1\n1\nm f=1 1", "a time of two": "m f=1 1_0",
    "too late": "m f=1 9223372036854775807",
    "too many forms": "\n".join(f"m f{n}=1 1" for n in range(20)), "bad": "m f=1 1\nbad\nm f=1 2",
}  # fmt: skip


@pytest.mark.parametrize("text", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_anything_else_is_read_line_by_line(text: str) -> None:
    assert survey(text.encode(), 1, ANYBODY) is None


@pytest.mark.parametrize("text", ["m f=1 1", "m,user_id=8 f=1 1", "m,user_id=7 f=1 1\nm,user_id=8 f=1 1"])
def test_a_user_s_lines_have_to_be_his_own(text: str) -> None:
    assert survey(text.encode(), 1, SEVEN) is None


OF_A_KIND = {
    "of many series": "m,user_id=7 f=1.5 100\nm,user_id=12 f=20.25 101\n",
    "of several measurements": "m f=1 10\nn g=2i,h=t 11\nm f=12 12",
    "negative numbers": "m f=-1 10\nm f=2 11",
    "in any order": "m f=1 130\nm f=1 110\nm f=1 120",
    "beyond ASCII": "h\u00e9 f=1 10\nh\u00e9 f=2 11",
}


@pytest.mark.parametrize("text", OF_A_KIND.values(), ids=OF_A_KIND)
def test_lines_that_differ_in_digits_are_judged_by_kind(text: str) -> None:
    found = survey_by_kind(text.encode(), 1, ANYBODY)
    assert found
    assert found == survey_by_part(text.encode(), 1, ANYBODY)


DIGITS_DECIDE = {
    "a measurement": "m1 f=1 10", "a tag's key": "m,t1=a f=1 10", "a field's key": "m f1=1 10\nm f2=1i 11",
    "a field that begins with the time": "m 100=1 100\nm 100=1 200", "a time's length": "m f=1 9\nm f=1 10",
    "a time's beginning": "m f=1 100\nm f=1 900\nm f=1 101",
}  # fmt: skip


@pytest.mark.parametrize("text", DIGITS_DECIDE.values(), ids=DIGITS_DECIDE)
def test_where_digits_decide_the_parts_are_looked_at(text: str) -> None:
    assert survey_by_kind(text.encode(), 1, ANYBODY) is None
    found = survey(text.encode(), 1, ANYBODY)
    assert found
    assert found == survey_by_part(text.encode(), 1, ANYBODY)


def test_a_user_s_own_lines_are_judged_by_kind() -> None:
    assert survey_by_kind(b"m,user_id=7 f=1 10\nm,t=a,user_id=7,x=b f=2 11", 1, SEVEN)
    for foreign in (b"m,user_id=77 f=1 10", b"m f=1,user_id=7 10", b"m,user_id=8 f=1 10\nm,user_id=7 f=1,user_id=7 10"):
        assert survey(foreign, 1, SEVEN) is None


@pytest.mark.parametrize(("oldest", "newest"), [(1000, 1009), (1005, 1009), (1000, 1007)])
def test_the_times_of_lines_of_a_kind_lie_within_bounds(oldest: int, newest: int) -> None:
    rules = Rules(user_id=None, received=5, oldest=oldest, newest=newest)
    for times in ([1000, 1009], [1005, 1006, 1007], [1000, 1004, 1003], [1009]):
        found = survey("".join(f"m f=1 {time}\n" for time in times).encode(), 1, rules)
        assert (found is not None) == all(oldest <= time <= newest for time in times)


def test_times_count_in_their_unit() -> None:
    assert survey(b"m f=1 1717236000000000000", 1, ANYBODY)
    assert survey(b"m f=1 1717236000000000000", 10**9, ANYBODY) is None


parts = st.sampled_from(
    ["m", "n,t=v", "m,user_id=7", "f=1", "f=2i", "g=t", "f=1.5,g=f", ",", " ", "\n", "5", " 6", "#", "=", "\t", "1=2"]
)
lines = st.tuples(
    st.sampled_from(
        ["m", "n,t=v", "m,user_id=7", "m,user_id=77", "m,t=v,user_id=7", "m,a1=b,a2=b", "m,a1=b,a1=c", "_m"]
    ),
    st.sampled_from(["f=1", "f=-0.25", "g=2i", "f=3,g=4i", "b=t", "f=1e3", "5=5", "f=1,user_id=7"]),
    st.sampled_from(["5", "6", "52", "-6", "1717236000000000000", ""]),
).map(" ".join)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.one_of(lines, lines, st.lists(parts, max_size=8).map("".join)), max_size=8),
    st.sampled_from([ANYBODY, SEVEN]),
)
def test_what_it_lets_through_means_the_same_line_by_line(texts: list[str], rules: Rules) -> None:
    text = "\n".join(texts)
    found = survey(text.encode(), 1, rules)
    assert survey_by_part(text.encode(), 1, rules) == found
    if found is None:
        return
    points = list(parse(text, 1))
    assert len(points) == found.points
    for point in points:
        assert not isinstance(point, Detail)
        _, measurement, tags, fields, time = point
        assert time is not None
        assert rules.user_id is None or tags["user_id"] == rules.user_id
        for field, value in fields.items():
            assert found.types[measurement][field] == TYPES[type(value)]
