"""Buckets: names, retention, and what becomes of their points."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from heartguard.errors import NotFound
from heartguard.models.timeseries import Point, QueryRequest, WriteRequest
from services.influx.src.db import PostgresStore
from services.influx.src.store import BucketGone, Selection, Series, StoredBucket
from services.influx.src.times import UNBOUNDED
from services.influx.src.timeseries import TimeSeries

from ..callers import code, details
from .conftest import AnyStore, Backend, Caller, add, claims, postgres_only, running

POINT = {"measurement": "m", "fields": {"f": 1}, "timestamp": "2024-06-01T10:00:00Z"}


def names(caller: Caller) -> list[str]:
    answer = caller.send("GET", "/timeseries/buckets")
    assert answer.status_code == 200
    assert answer.json is not None
    return [bucket["bucket"] for bucket in answer.json["buckets"]]


def test_a_bucket_is_made_listed_and_dropped(admin: Caller) -> None:
    name = f"org_{admin.org_id}_ward"
    answer = admin.create(name, retention_seconds=7200, description="Ward 3")
    assert answer.status_code == 201
    made = answer.json
    assert made is not None
    assert made | {"created_at": ""} == {
        "bucket": name, "retention_seconds": 7200, "description": "Ward 3", "created_at": "",
    }  # fmt: skip
    assert made["created_at"].endswith("Z")
    assert names(admin.as_user(5)) == [f"org_{admin.org_id}", name]
    assert admin.send("DELETE", f"/timeseries/buckets/{name}").status_code == 204
    assert names(admin) == [f"org_{admin.org_id}"]
    assert admin.send("DELETE", f"/timeseries/buckets/{name}").status_code == 404


def test_a_name_is_taken_once(admin: Caller) -> None:
    name = f"org_{admin.org_id}_x"
    assert admin.create(name).status_code == 201
    answer = admin.create(name, retention_seconds=3600)
    assert (answer.status_code, code(answer)) == (409, "TS_001")


@pytest.mark.parametrize("name", ["org_1", "org_1_x", "org_{0}x", "org_{0}_", "x"])
def test_names_that_are_not_the_organization_s(admin: Caller, name: str) -> None:
    answer = admin.create(name.format(admin.org_id))
    assert (answer.status_code, code(answer)) == (403, "TS_403")


def test_names_have_to_be_well_formed(admin: Caller) -> None:
    for name in ("Org", "a-b", "", "x" * 65):
        assert admin.create(name).status_code == 422
    for name in ("org_1", f"org_{admin.org_id}_%00", f"org_{admin.org_id}_A", "..", "%F0%9F%92%93"):
        assert admin.send("DELETE", f"/timeseries/buckets/{name}").status_code == 404


@pytest.mark.parametrize(("retention", "status"), [(0, 201), (1, 422), (3599, 422), (3600, 201), (-1, 422)])
def test_retention(admin: Caller, retention: int, status: int) -> None:
    answer = admin.create(f"org_{admin.org_id}_r", retention_seconds=retention)
    assert answer.status_code == status
    if status == 422:
        assert list(details(answer)) == ["/retention_seconds"]


@pytest.fixture
def app_of_three(backend: Backend) -> Iterator[Flask]:
    """The service where an organization may have three buckets."""
    with running({**backend.environ, "TIMESERIES_MAX_BUCKETS": "3"}) as app:
        yield app


def test_an_organization_has_so_many_buckets_and_no_more(
    app_of_three: Flask, org: int, new_org: Callable[[], int]
) -> None:
    app, admin = app_of_three, Caller(app_of_three, org)
    wanted = [f"org_{org}", *(f"org_{org}_{n}" for n in range(3))]
    assert [admin.create(name).status_code for name in wanted] == [201, 201, 201, 409]
    assert code(admin.create(wanted[3])) == "TS_409"
    assert code(admin.create(wanted[2])) == "TS_001"
    other = Caller(app, new_org())
    assert other.create(f"org_{other.org_id}_0").status_code == 201
    assert admin.send("DELETE", f"/timeseries/buckets/{wanted[1]}").status_code == 204
    assert admin.create(wanted[3]).status_code == 201


@pytest.mark.parametrize("role", ["user", "manager"])
def test_only_an_admin_makes_and_drops_buckets(admin: Caller, role: str) -> None:
    other = admin.as_user(2, role)
    assert other.create(f"org_{admin.org_id}_x").status_code == 403
    assert other.send("DELETE", f"/timeseries/buckets/org_{admin.org_id}").status_code == 403


def test_nobody_sees_another_organization(admin: Caller, new_org: Callable[[], int]) -> None:
    name = f"org_{admin.org_id}_private"
    admin.create(name)
    admin.write(POINT, bucket=name)
    stranger = Caller(admin.app, new_org())
    assert names(stranger) == [f"org_{stranger.org_id}"]
    assert stranger.query(bucket=name).status_code == 404
    assert stranger.send("DELETE", f"/timeseries/buckets/{name}").status_code == 404
    assert stranger.write(POINT, bucket=name).status_code == 403
    assert len(admin.rows(bucket=name)) == 1


def test_the_default_bucket_comes_back_empty(admin: Caller) -> None:
    default = f"org_{admin.org_id}"
    assert admin.write(POINT).status_code == 200
    assert admin.send("DELETE", f"/timeseries/buckets/{default}").status_code == 204
    assert admin.rows() == []
    assert admin.write({**POINT, "fields": {"f": "now a string"}}).status_code == 200


def test_the_default_bucket_may_be_made_with_a_retention(admin: Caller) -> None:
    default = f"org_{admin.org_id}"
    assert admin.create(default, retention_seconds=3600).status_code == 201
    assert admin.write(POINT).status_code == 422
    assert admin.create(default).status_code == 409


@postgres_only
@pytest.mark.parametrize("retention", [0, 7200])
def test_dropped_points_are_gone_from_the_disk(superuser: Any, store: PostgresStore, org: int, retention: int) -> None:
    bucket = store.create_bucket(org, f"org_{org}_x", retention_seconds=retention, description=None)
    assert bucket is not None
    batch = store.batch(bucket)
    add(batch, Series("m", (("t", "v"),)), store._clock(), {"f": 1.0})
    batch.write()
    tables = text("SELECT count(*) FROM pg_class WHERE relname LIKE :name")
    count = text("SELECT count(*) FROM heartguard_core.points WHERE bucket_id = :bucket")
    remains = text("""
        SELECT (SELECT count(*) FROM heartguard_core.series WHERE bucket_id = :bucket)
             + (SELECT count(*) FROM heartguard_core.fields WHERE bucket_id = :bucket)
             + (SELECT count(*) FROM heartguard_core.dropped_buckets WHERE bucket_id = :bucket)
    """)
    with superuser.transaction() as tx:
        assert tx.execute(count, {"bucket": int(bucket.id)}).scalar_one() == 1
    assert store.drop_bucket(org, bucket.name)
    with superuser.transaction() as tx:
        assert tx.execute(count, {"bucket": int(bucket.id)}).scalar_one() == 0
    store.sweep()
    with superuser.transaction() as tx:
        assert tx.execute(tables, {"name": f"points\\_{bucket.id}%"}).scalar_one() == 0
        assert tx.execute(remains, {"bucket": int(bucket.id)}).scalar_one() == 0


def test_a_bucket_dropped_by_another_process_is_noticed(
    timeseries: TimeSeries, other_store: AnyStore, org: int
) -> None:
    """Bucket and series are remembered here; the other store drops the bucket, and makes it anew with a retention."""
    caller = claims(org)
    default, named = f"org_{org}", f"org_{org}_x"
    other = other_store
    assert other.create_bucket(org, named, retention_seconds=0, description=None)
    for bucket in (default, named):
        request = WriteRequest(bucket=bucket, points=[Point(measurement="m", fields={"f": 1.0})])
        assert timeseries.write(request, caller) == 1
        assert other.drop_bucket(org, bucket)
    # The default bucket is simply made again, its fields without a type.
    text_now = [Point(measurement="m", fields={"f": "x"})]
    assert timeseries.write(WriteRequest(bucket=default, points=text_now), caller) == 1
    with pytest.raises(NotFound):
        timeseries.write(WriteRequest(bucket=named, points=text_now), caller)
    with pytest.raises(NotFound):
        timeseries.query(QueryRequest(measurement="m", bucket=named), caller)


def test_a_stale_bucket_is_of_no_use(store: AnyStore, other_store: AnyStore, org: int) -> None:
    bucket = store.create_bucket(org, f"org_{org}", retention_seconds=0, description=None)
    assert bucket is not None
    assert other_store.drop_bucket(org, bucket.name)
    batch = store.batch(bucket)
    add(batch, Series("m", ()), 0, {"f": 1.0})
    with pytest.raises(BucketGone):
        batch.write()


def test_a_bucket_dropped_by_another_process_cannot_be_read(
    timeseries: TimeSeries, other_store: AnyStore, store: AnyStore, org: int
) -> None:
    other = other_store
    everything = Selection(
        measurement="m", start=0, stop=1, fields=None, tags={}, aggregate=None, window=1, limit=1
    )  # fmt: skip
    uses: list[Callable[[StoredBucket], object]] = [
        lambda bucket: store.field_types(bucket, {"m"}),
        lambda bucket: store.select(bucket, everything),
    ]
    for name, use in zip((f"org_{org}", f"org_{org}_x"), uses, strict=True):
        assert other.create_bucket(org, name, retention_seconds=0, description=None)
        request = QueryRequest(measurement="m", bucket=name)
        assert timeseries.query(request, claims(org)).count == 0
        known = store.bucket(org, name)
        assert known is not None
        assert other.drop_bucket(org, name)
        with pytest.raises(BucketGone):
            use(known)
        assert store.bucket(org, name) is None
    with pytest.raises(NotFound):
        timeseries.query(request, claims(org))
    assert timeseries.query(QueryRequest(measurement="m"), claims(org)).count == 0


def test_a_bucket_that_always_vanishes(
    store: AnyStore, other_store: AnyStore, org: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropped each time between being looked up and being used, as if somebody waited for it."""

    def vanishing(org_id: int, name: str) -> StoredBucket | None:
        other_store.create_bucket(org_id, name, retention_seconds=0, description=None)
        found = other_store.bucket(org_id, name)
        other_store.drop_bucket(org_id, name)
        return found

    monkeypatch.setattr(store, "bucket", vanishing)
    with pytest.raises(NotFound):
        TimeSeries(store, UNBOUNDED).write(
            WriteRequest(points=[Point(measurement="m", fields={"f": 1.0})]), claims(org)
        )


def test_first_users_of_a_default_bucket_do_not_trip_over_each_other(admin: Caller) -> None:
    answers: list[int] = []
    barrier = threading.Barrier(6)

    def write(number: int) -> None:
        barrier.wait(10)
        answers.append(admin.as_user(number).write(POINT).status_code)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == [200] * 6
    assert len(admin.rows()) == 6


def test_the_database_itself_refuses_a_bucket_under_another_organization_s_name(superuser: Any, org: int) -> None:
    with pytest.raises(IntegrityError), superuser.transaction() as tx:
        tx.execute(
            text(
                "SELECT heartguard_core.create_bucket(:org, 'org_1_x', 0, NULL, 0)"
                " FROM set_config('heartguard.org_id', cast(:org AS text), true)"
            ),
            {"org": org},
        )
