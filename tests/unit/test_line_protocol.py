"""Line protocol: the grammar, what is wrong with a line, and that nothing is lost on the way."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartguard.errors import Invalid, Malformed
from heartguard.models.base import UNSET
from heartguard.models.common import Detail
from heartguard.models.timeseries import MAX_FIELDS, MAX_TAGS
from heartguard.parameters import read_query
from services.influx.src.line_protocol import Entry, LineQuery, head, parse, parse_some, read_lines


def points(text: str, precision: int = 1) -> list[Entry]:
    found: list[Entry] = []
    for entry in parse(text, precision):
        assert not isinstance(entry, Detail), entry.message
        found.append(entry)
    return found


def problems(text: str) -> dict[str, str]:
    return {entry.path: entry.message for entry in parse(text, 1) if isinstance(entry, Detail)}


@pytest.mark.parametrize(
    ("line", "point"),
    [
        ("m f=1", ("m", {}, {"f": 1.0}, None)),
        ("m,t=v f=1 5", ("m", {"t": "v"}, {"f": 1.0}, 5)),
        ("m,b=2,a=1 f=1,g=2 -5", ("m", {"b": "2", "a": "1"}, {"f": 1.0, "g": 2.0}, -5)),
        (r"m\ e\,a\=s,k\ \,\=e=v\ \,\=l f\ \,\=k=1", (r"m e,a\=s", {"k ,=e": "v ,=l"}, {"f ,=k": 1.0}, None)),
        (r"m\n,t\=a=b\c f=1", ("m\\n", {"t=a": "b\\c"}, {"f": 1.0}, None)),
        ('m,t="q" "f"=1', ("m", {"t": '"q"'}, {'"f"': 1.0}, None)),
        ("m=x f=1", ("m=x", {}, {"f": 1.0}, None)),
        (r'm f="a \"b\" \\ c \d , = #"', ("m", {}, {"f": r'a "b" \ c \d , = #'}, None)),
        ('m f="",g="two\nlines" 7', ("m", {}, {"f": "", "g": "two\nlines"}, 7)),
        ("m a=t,b=T,c=true,d=True,e=TRUE", ("m", {}, dict.fromkeys("abcde", True), None)),
        ("m a=f,b=F,c=false,d=False,e=FALSE", ("m", {}, dict.fromkeys("abcde", False), None)),
        ("m a=72i,b=-5i,c=7u,d=+3i", ("m", {}, {"a": 72, "b": -5, "c": 7, "d": 3}, None)),
        ("m a=1.5,b=-.5,c=1.,d=1e3,e=2E-3", ("m", {}, {"a": 1.5, "b": -0.5, "c": 1.0, "d": 1e3, "e": 2e-3}, None)),
        ("m a=+4", ("m", {}, {"a": 4.0}, None)),
        ("  m  f=1  5  ", ("m", {}, {"f": 1.0}, 5)),
        ("m f=1,f=2", ("m", {}, {"f": 2.0}, None)),
        ("μέτρο,ετικέτα=τιμή πεδίο=1", ("μέτρο", {"ετικέτα": "τιμή"}, {"πεδίο": 1.0}, None)),
    ],
)  # fmt: skip
def test_grammar(line: str, point: object) -> None:
    for ending in ("", "\n", "\r\n"):
        ((number, *found),) = points(line + ending)
        assert (number, *found) == (1, *point)  # type: ignore[misc]
        assert [type(v) for v in found[2].values()] == [type(v) for v in point[2].values()]  # type: ignore[attr-defined, index]


def test_lines_that_say_nothing_are_passed_over_but_counted() -> None:
    text = '\n# comment\r\n  \n  # another\nm f=1\n\n\nm f="a\nb"\n#\nm f=2 \n# last'
    assert [number for number, *_ in points(text)] == [5, 8, 11]
    assert points("") == points("\n\n") == points("# only\n#") == []


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("m", "measurement"),
        ("m,t=v", "measurement"),
        (",t=v f=1", "measurement"),
        ("m, f=1", "measurement"),
        ("m,t f=1", "measurement"),
        ("m,t= f=1", "measurement"),
        ("m,=v f=1", "measurement"),
        ("m,t=a=b f=1", "measurement"),
        ("m,t=v\\ f=1", "measurement"),
        ("m,t=a,t=b f=1", "twice"),
        ("m f", "fields"),
        ("m f=", "fields"),
        ("m =1", "fields"),
        ("m f=1,", "fields"),
        ("m f=1,g", "fields"),
        ('m f="open', "fields"),
        ('m f="a"b', "fields"),
        ('m f=a"b"', "fields"),
        ("m f=1 g=2", "timestamp"),
        ("m f=1 5x", "timestamp"),
        ("m f=1 1.5", "timestamp"),
        ("m f=1 5 6", "timestamp"),
        ("m f=1\rm f=2", "timestamp"),
        ("m f=NaN", "value"),
        ("m f=inf", "value"),
        ("m f=abc", "value"),
        ("m f=1_0", "value"),
        ("m f=1.5i", "value"),
        ("m f=-1u", "value"),
        ("m f=0x1", "value"),
        ("m f=٣", "value"),
        ("m f=" + "9" * 5000 + "i", "value"),
        ("m f=1 " + "9" * 5000, "64 bits"),
    ],
)
def test_what_is_wrong_with_a_line(line: str, what: str) -> None:
    for ending in ("", "\n"):
        ((path, message),) = problems(line + ending).items()
        assert path == "/lines/1"
        assert what in message


def test_every_bad_line_is_named_and_the_others_are_read() -> None:
    text = "m f=1\nbad\nm f=2\nm f=x\n\nm f=3\nalso bad"
    assert list(problems(text)) == ["/lines/2", "/lines/4", "/lines/7"]
    assert [entry[3]["f"] for entry in parse(text, 1) if not isinstance(entry, Detail)] == [1.0, 2.0, 3.0]


def test_an_open_string_spoils_only_its_own_line() -> None:
    assert list(problems('m f="open\nm f=1\nm f=2')) == ["/lines/1"]


@pytest.mark.parametrize(
    "text",
    [
        "m" + ",t=v" * 50_000,
        "m f=" + '"' + "\\" * 100_001,
        "m " + "f=1," * 50_000,
        "\\" * 200_000,
        "m f=" + "1" * 1_000_000 + "x",
        "m f=1." + "1" * 1_000_000 + "e",
    ],
)
def test_long_bad_lines_take_no_longer_than_good_ones(text: str) -> None:
    assert list(problems(text)) == ["/lines/1"]


names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12).filter(
    lambda name: not name.endswith("\\") and not name.startswith("#")
)
strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**63 - 1), st.booleans(), strings
)


def render(measurement: str, tags: dict[str, str], fields: dict[str, object], time: int | None) -> str:
    """As a well-behaved client would write it."""

    def value(given: object) -> str:
        if isinstance(given, bool):
            return str(given)
        if isinstance(given, int):
            return f"{given}i"
        if isinstance(given, float):
            return repr(given)
        return '"' + re.sub(r'["\\]', r"\\\g<0>", str(given)) + '"'

    keys = (re.sub("[,= ]", r"\\\g<0>", key) for key in fields)
    pairs = ",".join(f"{key}={value(given)}" for key, given in zip(keys, fields.values(), strict=True))
    return f"{head(measurement, tags.items())} {pairs}" + ("" if time is None else f" {time}")


batches = st.lists(
    st.tuples(
        names,
        st.dictionaries(names, names, max_size=4),
        st.dictionaries(names, values, min_size=1, max_size=4),
        st.none() | st.integers(-(2**63), 2**63 - 1),
    ),
    max_size=5,
)


@given(batches, st.sampled_from(["\n", "\r\n", "\n\n", "\n# comment\n"]))
def test_what_is_rendered_is_read_back(
    batch: list[tuple[str, dict[str, str], dict[str, object], int | None]], end: str
) -> None:
    found = points(end.join(render(*point) for point in batch))
    assert [tuple(rest) for _, *rest in found] == batch
    for (*_, fields, _), (_, _, _, read, _) in zip(batch, found, strict=True):
        assert [(type(v), math.copysign(1, v) if isinstance(v, float) else 0) for v in fields.values()] == [
            (type(v), math.copysign(1, v) if isinstance(v, float) else 0) for v in read.values()
        ]


@given(st.text(st.sampled_from('m ,=\\"\n\r#t1i.e-')))
def test_no_text_is_too_odd(text: str) -> None:
    lines = text.count("\n") + 1
    for entry in parse(text, 1):
        number = int(entry.path.removeprefix("/lines/")) if isinstance(entry, Detail) else entry[0]
        assert 1 <= number <= lines


def test_the_query_string_names_bucket_and_precision() -> None:
    batch = read_lines(b"m f=1 5", read_query({"bucket": "org_1", "precision": "ms"}, LineQuery))
    assert batch.bucket == "org_1"
    assert [entry[4] for entry in batch.entries() if not isinstance(entry, Detail)] == [5_000_000]
    assert read_lines(b"m f=1", LineQuery()).bucket is UNSET


@pytest.mark.parametrize(
    "args", [{"precision": "h"}, {"precision": "n"}, {"org": "1"}, {"bucket": "Org"}, {"bucket": ""}]
)
def test_what_the_query_string_may_not_say(args: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        read_query(args, LineQuery)


def test_a_body_that_is_not_utf8_is_malformed() -> None:
    with pytest.raises(Malformed):
        read_lines(b"m f=\xff", LineQuery())


def test_a_line_has_as_many_tags_and_fields_as_a_point_can_have() -> None:
    tags = "".join(f",t{n}=v" for n in range(MAX_TAGS))
    fields = ",".join(f"f{n}=1" for n in range(MAX_FIELDS))
    assert len(points(f"m{tags} {fields}")) == 1
    assert list(problems(f"m{tags},more=v f=1")) == ["/lines/1"]
    assert list(problems(f"m {fields},more=1")) == ["/lines/1"]


ODD = [
    "m f=1", "m f=1 5", 'm f="a\nb" 5', "bad", "", "  ", "#x", "\t#x", " m f=t\r", "m f=1,", "m f=x", 'm f="',
    "m f=1 x", "m,t=1,t=2 f=1", "m\\", "m\\ f=1", "m f=1i,g=2u", "m f=.5e3 -7", '"', "m f=\\", "m\tf=1", "\r",
]  # fmt: skip
odd_lines = st.lists(
    st.one_of(st.sampled_from(ODD), st.text(st.sampled_from('mf=1i, "\\#\tt.e-5\r'), max_size=12)), max_size=12
)


@given(odd_lines, st.integers(0, 4))
def test_lines_that_are_only_counted_are_those_that_would_be_described(lines: list[str], described: int) -> None:
    text = "\n".join(lines)
    everything = list(parse(text, 1))
    some = list(parse_some(text, 1, described))
    points = [entry for entry in everything if isinstance(entry, tuple)]
    bad = [entry for entry in everything if isinstance(entry, Detail)]
    assert [entry for entry in some if isinstance(entry, tuple)] == points
    assert [entry for entry in some if isinstance(entry, Detail)] == bad[:described]
    assert sum(entry for entry in some if isinstance(entry, int)) == len(bad[described:])


BAD_RUNS = ["x\n", " x y\n", "m f=x\n", "m f=1,g\n", "m f=1 x\n#\n\n", 'm f="\\"\n', f"m f={'1' * 99}x\n"]


@pytest.mark.parametrize("line", BAD_RUNS)
def test_runs_of_bad_lines_are_one_count(line: str) -> None:
    text = "m f=1\n" + line * 200_000 + "m f=2\n" + line * 100_000
    found = list(parse_some(text, 1, 10))
    assert found[-2:] == [found[-2], 100_000]
    assert [entry for entry in found if isinstance(entry, int)] == [200_000 - 10, 100_000]
    assert len(found) == 10 + 2 + 2
