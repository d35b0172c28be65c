"""Batches that race, and a PostgreSQL that goes away."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import event, text

from heartguard.database import Database
from heartguard.errors import Unavailable
from heartguard.local.files import private_folder
from heartguard.local.postgres import Postgres
from heartguard.local.server import Running
from heartguard.migrate import migrate
from services.influx.src.db import PostgresStore
from services.influx.src.store import Selection, Series, StoredBucket, TypeConflict
from services.influx.src.times import MAX_TIME, MIN_TIME

from ..waiting import wait_until
from .conftest import Caller, add, postgres_only, running

EVERYTHING = Selection(
    measurement="m", start=MIN_TIME, stop=MAX_TIME + 1, fields=None, tags={}, aggregate=None, window=1, limit=100_000
)


def together(work: Sequence[Callable[[], None]]) -> list[Exception | None]:
    """Run all at once; what each failed with."""
    barrier = threading.Barrier(len(work))
    failures: list[Exception | None] = [None] * len(work)

    def run(number: int) -> None:
        barrier.wait(10)
        try:
            work[number]()
        except Exception as failure:  # noqa: BLE001  (told to the test)
            failures[number] = failure

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return failures


@pytest.fixture
def bucket(store: PostgresStore, org: int) -> StoredBucket:
    made = store.create_bucket(org, f"org_{org}", retention_seconds=0, description=None)
    assert made is not None
    return made


@postgres_only
def test_of_batches_that_race_for_a_field_s_type_only_one_kind_wins(
    store: PostgresStore, database: Database, bucket: StoredBucket
) -> None:
    """Each round a new field, written at once as a float and as an integer, by stores that share no memory."""
    stores = [store, PostgresStore(database), store, PostgresStore(database)]
    for number in range(15):
        field = f"f{number}"

        def write(store: PostgresStore, value: float, field: str = field) -> None:
            batch = store.batch(bucket)
            add(batch, Series("m", (("w", str(value)),)), 1, {field: value, "other": 1.0})
            batch.write()

        values: list[float] = [1.5, 2, 3.5, 4]
        failures = together([lambda s=s, v=v: write(s, v) for s, v in zip(stores, values, strict=True)])
        won = {type(value) for value, failure in zip(values, failures, strict=True) if failure is None}
        assert len(won) == 1
        assert all(failure is None or isinstance(failure, TypeConflict) for failure in failures)
        found = [row.value for row in store.select(bucket, EVERYTHING) if row.field == field]
        assert sorted(found) == [value for value in values if type(value) in won]


@postgres_only
def test_batches_that_touch_the_same_points_in_any_order_do_not_deadlock(
    store: PostgresStore, database: Database, bucket: StoredBucket
) -> None:
    series = [Series("m", (("n", str(n)),)) for n in range(60)]

    def write(store: PostgresStore, value: float, order: list[Series]) -> None:
        for _ in range(5):
            batch = store.batch(bucket)
            for one in order:
                for at in (3, 1, 2):
                    add(batch, one, at, {"a": value, "b": value})
            batch.write()

    orders = [series, series[::-1], series[30:] + series[:30], series[::2] + series[1::2]]
    failures = together(
        [lambda n=n, order=order: write(PostgresStore(database), float(n), order) for n, order in enumerate(orders)]
    )
    assert failures == [None] * 4
    assert len(store.select(bucket, EVERYTHING)) == 60 * 3 * 2


def test_dropping_a_bucket_under_writers(admin: Caller) -> None:
    """Each batch is whole in a bucket, gone with it, or refused; the server has no error of its own."""
    point = {"measurement": "m", "fields": {"f": 1}}
    statuses: list[int] = []

    def write() -> None:
        statuses.extend(admin.write(point, point, point).status_code for _ in range(15))

    def drop() -> None:
        path = f"/timeseries/buckets/org_{admin.org_id}"
        statuses.extend(admin.send("DELETE", path).status_code for _ in range(8))

    assert together([write, write, drop]) == [None] * 3
    assert set(statuses) <= {200, 204, 404}
    assert len(admin.rows()) % 3 == 0


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, stores_folder: Path) -> Iterator[tuple[Postgres, list[Running]]]:
    """A durable PostgreSQL of this test alone, to be killed and started again."""
    folder = private_folder(stores_folder / "kill")
    postgres = Postgres(folder / "postgres", private_folder(folder / "secrets"))
    servers = [Running(postgres)]
    migrate(postgres.url, passwords={"timeseries": postgres.password("timeseries")})
    yield postgres, servers
    for one in servers:
        one.stop()


def test_acknowledged_points_survive_a_crash_and_the_service_comes_back(server: tuple[Postgres, list[Running]]) -> None:
    postgres, servers = server
    point = {"measurement": "m", "fields": {"f": 1}}
    with running({"DATABASE_URL": postgres.url_for("timeseries")}) as app:
        admin = Caller(app, 7)
        assert app.test_client().get("/timeseries/ready").status_code == 200
        acknowledged: list[str] = []
        statuses: set[int] = set()
        stop = threading.Event()

        def write(number: int) -> None:
            for n in range(10_000):
                if stop.is_set():
                    return
                name = f"{number}-{n}"
                status = admin.write({**point, "tags": {"n": name}}).status_code
                statuses.add(status)
                if status == 200:
                    acknowledged.append(name)

        writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
        for writer in writers:
            writer.start()
        wait_until(lambda: len(acknowledged) >= 60)
        servers[0].kill()
        stop.set()
        for writer in writers:
            writer.join(30)
        assert statuses <= {200, 503}
        answer = admin.write(point)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert admin.query().status_code == 503
        assert app.test_client().get("/timeseries/ready").status_code == 503
        assert app.test_client().get("/timeseries/health").status_code == 200
        servers.append(Running(postgres))
        assert admin.write(point).status_code == 200
        found = admin.query(limit=100_000).json
        assert found is not None
        assert {row["tags"].get("n") for row in found["results"]} >= set(acknowledged)
        assert app.test_client().get("/timeseries/ready").status_code == 200


@postgres_only
def test_losing_the_connection_in_the_middle_of_a_batch(store: PostgresStore, bucket: StoredBucket) -> None:
    def kill(connection: object, cursor: object, statement: str, *_: object) -> None:
        if "FOR KEY SHARE" in statement:
            pid = cursor.connection.info.backend_pid  # type: ignore[attr-defined]
            with store._database.engine.connect() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

    batch = store.batch(bucket)
    add(batch, Series("m", ()), 1, {"f": 1.0})
    batch.write()
    event.listen(store._database.engine, "after_cursor_execute", kill)
    with pytest.raises(Unavailable):
        batch.write()
    event.remove(store._database.engine, "after_cursor_execute", kill)
    batch.write()
    assert len(store.select(bucket, EVERYTHING)) == 1
