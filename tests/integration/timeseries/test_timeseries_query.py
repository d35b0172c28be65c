"""Reading points: ranges, filters, windows, aggregates, and whose points one sees."""

import time
from collections.abc import Callable
from typing import Any, get_args

import pytest
from sqlalchemy import event, text

from heartguard.database import Database
from heartguard.models.timeseries import Aggregate, QueryRequest
from services.influx.src import db_read, db_select, influx_answers
from services.influx.src.db import PostgresStore
from services.influx.src.store import Selection, Series, StoredBucket
from services.influx.src.times import SECOND, format_time, parse_time
from services.influx.src.timeseries import TimeSeries

from ..callers import code, details
from ..waiting import wait_until
from .conftest import AnyStore, Caller, Clock, add, claims, postgres_only

HOUR = "2024-06-01T10:{}Z"


def at(minutes_and_seconds: str) -> str:
    return HOUR.format(minutes_and_seconds)


@pytest.fixture
def beats(admin: Caller) -> Caller:
    """Two patients, a float and an integer field and a note."""
    lines = [
        f'heart_rate,user_id=1 bpm=60,beats=1i,note="rest" {parse_time(at("00:00"))}',
        f"heart_rate,user_id=1 bpm=70,beats=2i {parse_time(at('00:30'))}",
        f'heart_rate,user_id=1 bpm=90,beats=4i,note="run" {parse_time(at("00:59.999999999"))}',
        f"heart_rate,user_id=1 bpm=100,beats=8i {parse_time(at('01:00'))}",
        f"heart_rate,user_id=1 bpm=110 {parse_time(at('05:30'))}",
        f"heart_rate,user_id=2,device=watch bpm=50,moving=t {parse_time(at('00:30'))}",
    ]
    assert admin.lines("\n".join(lines)).status_code == 200
    return admin


def test_raw_points_come_oldest_first_by_field_and_tags(beats: Caller) -> None:
    answer = beats.query("heart_rate", fields=["bpm", "beats"], range_start=at("00:30"), range_stop=at("01:00"))
    assert answer.json == {
        "count": 5,
        "results": [
            {"time": at("00:30"), "field": "beats", "value": 2, "tags": {"user_id": "1"}},
            {"time": at("00:30"), "field": "bpm", "value": 50.0, "tags": {"device": "watch", "user_id": "2"}},
            {"time": at("00:30"), "field": "bpm", "value": 70.0, "tags": {"user_id": "1"}},
            {"time": at("00:59.999999999"), "field": "beats", "value": 4, "tags": {"user_id": "1"}},
            {"time": at("00:59.999999999"), "field": "bpm", "value": 90.0, "tags": {"user_id": "1"}},
        ],
    }


def test_xml(beats: Caller) -> None:
    request = """<?xml version="1.0"?><QueryRequest><measurement>heart_rate</measurement>
      <range_start>2024-06-01T10:00:00Z</range_start><range_stop>2024-06-01T10:01:00Z</range_stop>
      <fields><field>note</field><field>moving</field></fields><limit>2</limit></QueryRequest>"""
    answer = beats.send(
        "POST", "/timeseries/query", data=request, content_type="application/xml", headers={"Accept": "text/xml"}
    )
    assert answer.content_type == "application/xml"
    assert answer.text.partition("<QueryResult>")[2] == (
        "<results><result><time>2024-06-01T10:00:00Z</time><field>note</field><value>rest</value>"
        "<tags><user_id>1</user_id></tags></result>"
        "<result><time>2024-06-01T10:00:30Z</time><field>moving</field><value>true</value>"
        "<tags><device>watch</device><user_id>2</user_id></tags></result></results><count>2</count></QueryResult>"
    )


def test_the_limit_is_that_of_the_whole_answer(beats: Caller) -> None:
    assert beats.rows("heart_rate", limit=3) == [
        (at("00:00"), "beats", 1),
        (at("00:00"), "bpm", 60.0),
        (at("00:00"), "note", "rest"),
    ]
    assert beats.rows("heart_rate", fields=["bpm"], aggregate="max", window="1m", limit=2) == [
        (at("01:00"), "bpm", 50.0), (at("01:00"), "bpm", 90.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("aggregate", "values"),
    [
        ("mean", [220 / 3, 100.0, 110.0]), ("median", [70.0, 100.0, 110.0]), ("min", [60.0, 100.0, 110.0]),
        ("max", [90.0, 100.0, 110.0]), ("count", [3, 1, 1]), ("sum", [220.0, 100.0, 110.0]),
        ("first", [60.0, 100.0, 110.0]), ("last", [90.0, 100.0, 110.0]), ("spread", [30.0, 0.0, 0.0]),
    ],
)  # fmt: skip
def test_aggregates(beats: Caller, aggregate: str, values: list[float]) -> None:
    found = beats.rows("heart_rate", fields=["bpm"], tags={"user_id": "1"}, aggregate=aggregate)
    assert [(time, value) for time, _, value in found] == [
        (at(stop), pytest.approx(value)) for stop, value in zip(("01:00", "02:00", "06:00"), values, strict=True)
    ]


def test_stddev_is_the_sample_s_and_leaves_single_points_out(beats: Caller) -> None:
    found = beats.rows("heart_rate", fields=["bpm"], tags={"user_id": "1"}, aggregate="stddev", limit=1)
    assert found == [(at("01:00"), "bpm", pytest.approx(15.2752523165))]
    assert beats.rows("heart_rate", fields=["bpm"], tags={"user_id": "2"}, aggregate="stddev") == []


@pytest.mark.parametrize(
    ("aggregate", "value"), [("min", 1), ("max", 4), ("sum", 7), ("spread", 3), ("first", 1), ("last", 4), ("count", 3)]
)
def test_integers_stay_integers(beats: Caller, aggregate: str, value: int) -> None:
    found = beats.rows("heart_rate", fields=["beats"], aggregate=aggregate, range_stop=at("01:00"))
    assert [type(value) for *_, value in found] == [int]
    assert found == [(at("01:00"), "beats", value)]


def test_sums_of_integers_beyond_64_bits_are_floats(admin: Caller) -> None:
    assert admin.lines(f"m f={2**63 - 1}i 1\nm f={2**63 - 1}i 2\nm f=-{2**63}i 3").status_code == 200
    assert admin.rows(aggregate="sum", range_stop="1970-01-01T00:00:00.000000003Z")[0][2] == 2.0**64
    assert admin.rows(aggregate="spread")[0][2] == 2.0**64
    assert admin.rows(aggregate="max")[0][2] == 2**63 - 1


@pytest.mark.parametrize("aggregate", ["mean", "sum", "spread", "stddev"])
def test_results_beyond_a_float_are_refused(admin: Caller, aggregate: str) -> None:
    assert admin.lines("m f=1.7e308 1\nm f=1.7e308 2\nm f=-1.7e308 3\nm f=-1.7e308 4").status_code == 200
    by_sum = aggregate in ("mean", "sum")
    stop = "1970-01-01T00:00:00.000000003Z" if by_sum else "now()"
    answer = admin.query(aggregate=aggregate, range_stop=stop)
    assert (answer.status_code, list(details(answer))) == (422, ["/aggregate"])


@pytest.mark.parametrize(("values", "middle"), [((1.7e308, 1.7e308), 1.7e308), ((-1.7e308, 1.7e308), 0.0)])
def test_the_middle_of_two_very_large_numbers_is_right_or_refused(
    admin: Caller, values: tuple[float, float], middle: float
) -> None:
    """PostgreSQL takes it from their difference, which a float may not hold."""
    assert admin.lines("\n".join(f"m f={value} {at}" for at, value in enumerate(values))).status_code == 200
    answer = admin.query(aggregate="median")
    if answer.status_code == 422:
        assert list(details(answer)) == ["/aggregate"]
    else:
        assert [value for _, _, value in admin.rows(aggregate="median", range_stop="now()")] == [middle]


def test_any_type_has_count_first_and_last(beats: Caller) -> None:
    in_minute: dict[str, Any] = {"fields": ["note", "moving"], "range_stop": at("01:00")}
    assert beats.rows("heart_rate", aggregate="count", **in_minute) == [
        (at("01:00"), "moving", 1),
        (at("01:00"), "note", 2),
    ]
    assert beats.rows("heart_rate", aggregate="first", **in_minute) == [
        (at("01:00"), "moving", True),
        (at("01:00"), "note", "rest"),
    ]
    assert beats.rows("heart_rate", aggregate="last", **in_minute)[1] == (at("01:00"), "note", "run")


def test_numbers_are_needed_for_the_other_aggregates(beats: Caller) -> None:
    answer = beats.query("heart_rate", aggregate="mean")
    assert answer.status_code == 422
    assert answer.json is not None
    messages = [detail["message"] for detail in answer.json["error"]["details"]]
    assert ["'moving'" in messages[0], "'note'" in messages[1], len(messages)] == [True, True, 2]
    # What is not chosen does not matter.
    assert beats.query("heart_rate", aggregate="mean", fields=["bpm", "beats"]).status_code == 200


def test_windows_are_aligned_to_the_epoch_and_clipped_to_the_range(admin: Caller) -> None:
    times = [-61, -60, -1, 0, 59, 60]
    assert admin.lines("\n".join(f"m f={second} {second}" for second in times), "?precision=s").status_code == 200
    found = admin.rows(aggregate="sum", range_start="1969-12-31T23:58:30Z", range_stop="1970-01-01T00:01:00.5Z")
    assert found == [
        ("1969-12-31T23:59:00Z", "f", -61.0), ("1970-01-01T00:00:00Z", "f", -61.0),
        ("1970-01-01T00:01:00Z", "f", 59.0), ("1970-01-01T00:01:00.5Z", "f", 60.0),
    ]  # fmt: skip


@pytest.mark.parametrize("window", ["999999999d", "100000d"])
def test_windows_may_be_longer_than_all_time(admin: Caller, store: AnyStore, window: str) -> None:
    assert admin.lines("m f=1 -9000000000000000000\nm f=2 -1\nm f=3 0").status_code == 200
    bucket = store.bucket(admin.org_id, f"org_{admin.org_id}")
    assert bucket is not None
    far = store.batch(bucket)  # further ahead than the service takes points
    far.add(Series("m", ()), "f", [9_000_000_000_000_000_000], [4.0])
    far.write()
    found = admin.rows(aggregate="count", window=window)
    assert [row[2] for row in found] == ([2, 2] if window == "999999999d" else [1, 1, 1, 1])
    assert found[-1][0] == "2261-12-31T23:59:59Z"


def test_the_range(beats: Caller) -> None:
    def times(**bounds: str) -> list[str]:
        return [time for time, *_ in beats.rows("heart_rate", fields=["bpm"], tags={"user_id": "1"}, **bounds)]

    assert times(range_start=at("00:00"), range_stop=at("00:59.999999999")) == [at("00:00"), at("00:30")]
    assert times(range_start=at("01:00"), range_stop=at("01:00.000000001")) == [at("01:00")]
    assert times(range_start="-1h") == []


@pytest.mark.parametrize(
    ("start", "stop"),
    [("now()", "now()"), ("now()", "-1s"), ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00.000Z"), ("-1m", "-2m")],
)
def test_a_range_has_to_begin_before_it_ends(admin: Caller, start: str, stop: str) -> None:
    answer = admin.query(range_start=start, range_stop=stop)
    assert (answer.status_code, list(details(answer))) == (422, ["/range_start"])


def test_a_range_is_the_last_hour_unless_it_is_said(admin: Caller) -> None:
    now = time.time_ns()
    admin.lines(f"m f=1 {now - 3700 * SECOND}\nm f=2 {now - 3500 * SECOND}\nm f=3 {now + 60 * SECOND}")
    answer = admin.send("POST", "/timeseries/query", {"measurement": "m"})
    assert answer.json is not None
    assert [row["value"] for row in answer.json["results"]] == [2.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"limit": 100_001},
        {"window": "0m"},
        {"window": "1"},
        {"aggregate": "mode"},
        {"range_start": "yesterday"},
        {"fields": []},
    ],
)
def test_what_the_schema_refuses(admin: Caller, wrong: dict[str, Any]) -> None:
    answer = admin.query(**wrong)
    assert (answer.status_code, list(details(answer))) == (422, [f"/{next(iter(wrong))}"])


def test_tags_choose_series_by_equality(beats: Caller) -> None:
    assert len(beats.rows("heart_rate", tags={"device": "watch"})) == 2
    assert len(beats.rows("heart_rate", tags={"device": "watch", "user_id": "2"})) == 2
    assert beats.rows("heart_rate", tags={"device": "watch", "user_id": "1"}) == []
    assert beats.rows("heart_rate", tags={"device": ""}) == []
    assert beats.rows("heart_rate", tags={"none": "x"}) == []


def test_what_is_not_there(beats: Caller) -> None:
    assert beats.rows("nothing") == []
    assert beats.rows("heart_rate", fields=["nothing"], aggregate="mean") == []
    answer = beats.query(bucket=f"org_{beats.org_id}_none")
    assert (answer.status_code, code(answer)) == (404, "TS_404")
    assert beats.query(bucket="org_1").status_code == 404


def test_nothing_sent_is_pasted_into_a_query(admin: Caller) -> None:
    odd = "'; DROP TABLE heartguard_core.points; --\" $1 %s %(x)s :x {}"
    sent = {"measurement": odd, "tags": {odd: odd}, "fields": {odd: odd}, "timestamp": at("00:00")}
    assert admin.write(sent).status_code == 200
    assert admin.rows(odd, fields=[odd], tags={odd: odd}) == [(at("00:00"), odd, odd)]
    assert admin.rows(odd, fields=[odd], tags={odd: odd}, aggregate="last") == [(at("01:00"), odd, odd)]


@pytest.mark.parametrize("odd", ["\0", "a\x01", "\ufffe"])
def test_characters_that_xml_cannot_carry(admin: Caller, odd: str) -> None:
    assert admin.query(odd).status_code == 422
    assert admin.query(tags={"t": odd}).status_code == 422
    assert admin.query(fields=[odd]).status_code == 422


def test_a_user_reads_own_points_only(beats: Caller) -> None:
    user = beats.as_user(2)
    assert {field for _, field, _ in user.rows("heart_rate")} == {"bpm", "moving"}
    assert len(user.rows("heart_rate", tags={"user_id": "2"})) == 2
    answer = user.query("heart_rate", tags={"user_id": "1"})
    assert (answer.status_code, code(answer)) == (403, "TS_403")
    assert beats.as_user(3).rows("heart_rate") == []
    # The note is another user's: it is no reason to refuse, and its name is not told.
    assert user.query("heart_rate", aggregate="mean", fields=["bpm", "note"]).status_code == 200


@pytest.mark.parametrize("role", ["manager", "admin"])
def test_others_read_the_organization_s(beats: Caller, role: str) -> None:
    assert len(beats.as_user(9, role).rows("heart_rate", fields=["bpm"])) == 6


def test_expired_points_are_not_read(timeseries: TimeSeries, store: AnyStore, clock: Clock, org: int) -> None:
    bucket = store.create_bucket(org, f"org_{org}", retention_seconds=3600, description=None)
    assert bucket is not None
    batch = store.batch(bucket)
    for minutes in range(4):
        add(batch, Series("m", ()), clock.now - minutes * 60 * SECOND, {"f": float(minutes)})
    batch.write()
    clock.forward(3600 - 90)
    for aggregate, expected in (("", [1.0, 0.0]), ("sum", [1.0])):
        request = QueryRequest(
            measurement="m", range_start="-2h", window="7d", **({"aggregate": aggregate} if aggregate else {})
        )  # type: ignore[arg-type]
        assert [row.value for row in timeseries.query(request, claims(org)).results] == expected


@postgres_only
def test_only_the_chosen_points_are_read(store: PostgresStore, database: Database, org: int) -> None:
    """Both kinds of query find their points by ranges of the primary key, in one partition, however much there is."""
    bucket = store.create_bucket(org, f"org_{org}", retention_seconds=0, description=None)
    assert bucket is not None
    batch = store.batch(bucket)
    for second in range(2000):
        for series in range(10):
            add(batch, Series("m", (("s", str(series)),)), second * SECOND, {"f": float(second)})
    batch.write()
    selection = Selection(
        measurement="m",
        start=0,
        stop=60 * SECOND,
        fields=None,
        tags={"s": "3"},
        aggregate=None,
        window=60 * SECOND,
        limit=1000,
    )
    with database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE heartguard_core.points"))
    with database.transaction(org) as tx:
        chosen = db_read.choose(tx, bucket, selection)
        assert [one.tags for one in chosen] == [{"s": "3"}]
        for statement in (
            db_select.raw(bucket, selection, chosen, 1000),
            db_select.windows(bucket, selection, "mean", chosen),
        ):
            query = statement.compile(tx.engine, compile_kwargs={"literal_binds": True})
            plan = "\n".join(tx.exec_driver_sql(f"EXPLAIN {query}").scalars())
            assert f"points_{bucket.id}_pkey" in plan
            assert "Seq Scan" not in plan
            assert plan.count("points_") == plan.count(f"points_{bucket.id}")


def fill(superuser: Any, store: PostgresStore, org: int, points: int, series: int = 1) -> StoredBucket:
    """A bucket with a point each second in every series."""
    bucket = store.create_bucket(org, f"org_{org}", retention_seconds=0, description=None)
    assert bucket is not None
    batch = store.batch(bucket)
    for number in range(series):
        add(batch, Series("m", (("s", str(number)),)), 0, {"f": 0.0})
    batch.write()
    insert = text(
        "INSERT INTO heartguard_core.points (bucket_id, series_id, ts, value_float)"
        " SELECT :bucket, s.id, n * 1000000000::bigint, n FROM generate_series(1, :points - 1) n"
        " CROSS JOIN heartguard_core.series s WHERE s.bucket_id = :bucket ORDER BY 2, 3"
    )
    with superuser.transaction() as connection:
        connection.execute(insert, {"bucket": int(bucket.id), "points": points})
    partition = f"heartguard_core.points_{int(bucket.id)}"

    def vacuumed() -> bool:
        """As autovacuum would do it. Pages become visible to all once nobody has an older snapshot."""
        with superuser.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"VACUUM (ANALYZE) {partition}"))
            seen = text("SELECT relallvisible = relpages FROM pg_class WHERE oid = CAST(:name AS regclass)")
            return bool(connection.execute(seen, {"name": partition}).scalar_one())

    wait_until(vacuumed, 30)
    return bucket


@postgres_only
def test_windows_over_floats_are_read_from_the_index_alone(
    store: PostgresStore, database: Database, superuser: Any, org: int
) -> None:
    bucket = fill(superuser, store, org, 5000, series=10)
    day = {"measurement": "m", "start": 0, "stop": 86_400 * SECOND, "fields": None, "tags": {"s": "3"}, "limit": 1000}
    with database.transaction(org) as tx:
        for aggregate in get_args(Aggregate):
            selection = Selection(**day, aggregate=aggregate, window=60 * SECOND)
            chosen = db_read.choose(tx, bucket, selection)
            statement = db_select.windows(bucket, selection, aggregate, chosen)
            query = statement.compile(tx.engine, compile_kwargs={"literal_binds": True})
            plan = "\n".join(tx.exec_driver_sql(f"EXPLAIN {query}").scalars())
            assert f"Index Only Scan using points_{bucket.id}_pkey" in plan
            assert "Sort" not in plan.partition("CTE gathered")[2].partition("Scan using")[0] or aggregate == "median"


@postgres_only
def test_a_question_that_takes_too_long_is_refused_and_its_beginning_is_not(
    admin: Caller, store: PostgresStore, superuser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(superuser, store, admin.org_id, 200_000)
    monkeypatch.setattr(db_read, "SECONDS", 0.015)
    answer = admin.query(aggregate="mean", window="999d")
    assert (answer.status_code, list(details(answer))) == (422, ["/range_start"])
    beginning: dict[str, Any] = {"aggregate": "mean", "window": "1s", "limit": 3}
    wait_until(lambda: admin.query(**beginning).status_code == 200)  # it takes a tenth of that, on an idle machine
    monkeypatch.undo()
    assert [row[2] for row in admin.rows(**beginning)] == [0.0, 1.0, 2.0]
    assert [row[2] for row in admin.rows(aggregate="count", window="999d")] == [200_000]


@postgres_only
def test_all_parts_of_an_answer_show_the_same_state(
    store: PostgresStore, url_for: Callable[[str], str], org: int
) -> None:
    bucket = store.create_bucket(org, f"org_{org}", retention_seconds=0, description=None)
    assert bucket is not None

    def write(store: PostgresStore, *seconds: int) -> None:
        batch = store.batch(bucket)
        for second in seconds:
            add(batch, Series("m", ()), second * SECOND, {"f": float(second)})
        batch.write()

    other = Database(url_for("timeseries"), service="tests")
    parts: list[str] = []

    def between(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "gathered" in statement:
            parts.append(statement)
            if len(parts) == 1:
                write(PostgresStore(other), 50, 60)

    write(store, 0, 100)
    event.listen(store._database.engine, "after_cursor_execute", between)
    asked = Selection(
        measurement="m", start=0, stop=1000 * SECOND, fields=None, tags={}, aggregate="max", window=SECOND, limit=3
    )
    assert [row.value for row in store.select(bucket, asked)] == [0.0, 100.0]
    assert len(parts) == 2
    assert [row.value for row in store.select(bucket, asked)] == [0.0, 50.0, 60.0]
    other.close()


def test_as_many_series_as_one_answer_may_be_made_of(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [{"measurement": "m", "tags": {"s": str(number)}, "fields": {"f": 1}} for number in range(4)]
    assert admin.write(*points).status_code == 200
    for module in (db_read, influx_answers):
        monkeypatch.setattr(module, "MAX_SERIES", 4)
    assert len(admin.rows()) == 4
    for module in (db_read, influx_answers):
        monkeypatch.setattr(module, "MAX_SERIES", 3)
    answer = admin.query()
    assert (answer.status_code, list(details(answer))) == (422, ["/tags"])


def test_series_of_very_unequal_rates(admin: Caller) -> None:
    """One has most of the first points, the others go on when it has long ended: that takes several parts."""
    lines = [f"m,s=0 f={time} {time}" for time in range(500)]
    lines += [f"m,s={series} f={time} {time}" for series in range(1, 40) for time in range(series, 20_000, 1000)]
    assert admin.lines("\n".join(lines)).status_code == 200
    points = sorted((int(line.rpartition(" ")[2]), int(line.partition("=")[2].partition(" ")[0])) for line in lines)
    for limit in (1, 3, 100, 450, 520, 2000):
        assert [row[2] for row in admin.rows(limit=limit)] == [time for time, _ in points[:limit]]
    for limit in (1, 3, 100, 520, 2000):
        found = admin.rows(aggregate="sum", window="1s", limit=limit)
        assert len(found) == min(limit, 40)
    sparse = admin.lines("\n".join(f"n f={2**n} {2**n}" for n in range(60)))
    assert sparse.status_code == 200
    times = [row[2] for row in admin.rows("n", aggregate="max", window="1s", limit=5)]
    assert times == [float(2**29), *(float(2**n) for n in range(30, 34))]


def test_raw_points_over_many_series_and_types(admin: Caller) -> None:
    base = parse_time(at("00:00"))
    values = ("1.5", "2i", "t", '"x"')
    lines = [f"m,s={n % 7} f{n % 4}={values[n % 4]} {base + n // 28}" for n in range(280)]
    assert admin.lines("\n".join(lines)).status_code == 200
    rows = admin.rows(limit=250)
    assert len(rows) == 250
    assert rows == sorted(rows, key=lambda row: (parse_time(row[0]), row[1]))
    assert rows[-1][0] == format_time(base + 8)
