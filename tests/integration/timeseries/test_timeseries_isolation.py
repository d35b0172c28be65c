"""Isolation is held twice: each check that the service makes is taken out, and PostgreSQL still refuses.

An admin of one organization goes for another's points by every route, and by way of the store with buckets and series
in which the ids of both got mixed up, as a mistake in the code could mix them. Nothing of the other organization may be
read, and not one of its rows may change. The last test takes PostgreSQL's part away instead, and sees that the attacks
then do get through: they are no blanks.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, get_args

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, MultipleResultsFound

from heartguard.database import Database
from heartguard.local.postgres import Postgres
from heartguard.migrate import migrate
from heartguard.models.timeseries import Aggregate
from services.influx.src import db_read, db_write, tenancy
from services.influx.src.copying import Strand
from services.influx.src.db import PostgresStore
from services.influx.src.slots import Known, Slot
from services.influx.src.store import BucketGone, Selection, Series, StoredBucket

from ..sabotage import CANARY, conditions, held, take_out
from .conftest import Caller, add, postgres_only

pytestmark = [pytest.mark.usefixtures("backend"), postgres_only]

SOURCE = "services.influx.src"
IN_TEXT = re.compile(r"(?:WHERE|AND|ON) ((?:\w\.)?(?:id|org_id|name|bucket_id) = [:\w.]+)")
IN_PYTHON = re.compile(r"(points\.c\.bucket_id == int\(bucket\.id\))")
MODULES = {f"{SOURCE}.db": IN_TEXT, f"{SOURCE}.db_write": IN_TEXT, f"{SOURCE}.db_select": IN_PYTHON}
"""The modules that hold SQL, and what a condition looks like in each."""
SECOND = 1_000_000_000
FIELD, AT = "bpm", 5 * SECOND
SERIES = Series("m", (("patient", CANARY),))


# The attack


@dataclass
class Theatre:
    """Two organizations: the attacker's and the victim's."""

    attacker: Caller
    victim: Caller
    database: Database
    superuser: Any

    def __post_init__(self) -> None:
        self.store = PostgresStore(self.database)
        for caller, tag in ((self.victim, CANARY), (self.attacker, "Mallory")):
            point = {"measurement": "m", "tags": {"patient": tag}, "fields": {FIELD: 60.5, f"note_{tag}": tag}}
            for second in range(10):
                point["timestamp"] = f"1970-01-01T00:00:{second:02d}Z"
                assert caller.write(point).status_code == 200
        # The attacker has a single bucket: what finds all that it has finds one, and goes on.
        ward = {"bucket": self.ward(self.victim)}
        made = self.victim.create(ward["bucket"], retention_seconds=7200, description=CANARY)
        assert made.status_code == 201
        assert self.victim.write({"measurement": "m", "fields": {FIELD: 1.5}}, **ward).status_code == 200
        names = [self.default(self.victim), self.ward(self.victim), self.default(self.attacker)]
        self.buckets = {name: self.bucket(name) for name in names}
        self.series = self.find_series()
        # A type of the victim's that is not the attacker's.
        assert self.victim.write({"measurement": "m", "fields": {"odd": CANARY}}).status_code == 200

    @staticmethod
    def default(caller: Caller) -> str:
        return f"org_{caller.org_id}"

    @staticmethod
    def ward(caller: Caller) -> str:
        return f"org_{caller.org_id}_ward"

    def rows(self) -> Mapping[str, list[Any]]:
        """All that the victim's organization has."""
        with self.superuser.transaction() as tx:
            return {
                table: tx.execute(
                    text(
                        f"SELECT t::text FROM heartguard_core.{table} t JOIN heartguard_core.buckets b ON b.id = {key}"
                        " WHERE b.org_id = :org ORDER BY 1"
                    ),
                    {"org": self.victim.org_id},
                ).all()
                for table, key in {
                    "buckets": "t.id", **dict.fromkeys(("fields", "series", "points"), "t.bucket_id")
                }.items()
            }  # fmt: skip

    def bucket(self, name: str) -> StoredBucket:
        found = self.store.bucket(int(name.split("_")[1]), name)
        assert found is not None
        return found

    def find_series(self) -> int:
        with self.superuser.transaction() as tx:
            return int(
                tx.execute(
                    text(
                        "SELECT s.id FROM heartguard_core.series s JOIN heartguard_core.buckets b ON b.id = s.bucket_id"
                        " WHERE b.name = :name AND s.field = :field"
                    ),
                    {"name": self.default(self.victim), "field": FIELD},
                ).scalar_one()
            )

    def attack(self) -> list[str]:
        """Everything that was read of the victim's, by the attempt that got it."""
        leaks = [
            f"{method} {path} {body}"
            for method, path, body in self.requests()
            if CANARY in self.attacker.send(method, path, body).text
        ]
        # What the victim has is nothing to the attacker's own points.
        if self.attacker.write({"measurement": "m", "fields": {"odd": 1.5}}).status_code == 400:
            leaks.append("the type of a field")
        for name, bucket in self.mixed():
            leaks += [f"{name}: {leak}" for leak in self.through_the_store(bucket)]
        return leaks

    def requests(self) -> Iterator[tuple[str, str, Any]]:
        victim, point = self.victim, {"measurement": "m", "tags": {"patient": CANARY[::-1]}, "fields": {FIELD: 666.5}}
        own: dict[str, str] = {}
        default, ward = {"bucket": self.default(victim)}, {"bucket": self.ward(victim)}
        for bucket in (own, default, ward):
            for tags in ({}, {"patient": CANARY}):
                asked = {"measurement": "m", "range_start": "1678-01-01T00:00:00Z", "tags": tags, **bucket}
                yield "POST", "/timeseries/query", asked
                yield "POST", "/timeseries/query", {**asked, "aggregate": "last", "window": "1h"}
            yield "POST", "/timeseries/write", {"points": [point], **bucket}
        yield "GET", "/timeseries/buckets", None
        yield "POST", "/timeseries/buckets", {"bucket": f"org_{victim.org_id}_new"}
        yield "POST", "/timeseries/buckets", {**ward, "retention_seconds": 3600}
        yield "DELETE", f"/timeseries/buckets/{self.ward(victim)}", None

    def mixed(self) -> Iterator[tuple[str, StoredBucket]]:
        """Buckets of the attacker's in which something is the victim's."""
        own = self.buckets[self.default(self.attacker)]
        for name in (self.default(self.victim), self.ward(self.victim)):
            yield name, replace(self.buckets[name], org_id=self.attacker.org_id)
            yield f"id of {name}", replace(own, id=self.buckets[name].id)

    def through_the_store(self, bucket: StoredBucket) -> Iterator[str]:
        for aggregate in (None, *get_args(Aggregate)):
            selection = Selection(
                measurement="m", start=0, stop=2**62, fields=None, tags={}, aggregate=aggregate,
                window=3600 * SECOND, limit=1000,
            )  # fmt: skip
            if self.read(bucket, selection):
                yield f"{aggregate or 'points'}"
        if ("m", f"note_{CANARY}") in (refused(lambda: self.store.field_types(bucket, ["m"])) or ()):
            yield "field_types"
        for series in (SERIES, Series("m", (("patient", "new"),))):
            for time in (AT, 2**61):
                batch = self.store.batch(bucket)
                add(batch, series, time, {FIELD: 666.5})
                refused(batch.write)
        if bucket.name != self.default(self.attacker):
            refused(lambda: self.store.drop_bucket(self.attacker.org_id, bucket.name))

    def read(self, bucket: StoredBucket, selection: Selection) -> bool:
        """Whether points of the victim's come back: by the bucket's series, and by a series that is known."""
        if refused(lambda: self.store.select(bucket, selection)):
            return True
        chosen = [db_read.Chosen(self.series, FIELD, "float", {})]
        with self.database.transaction(self.attacker.org_id, snapshot=True) as tx:
            parts = db_read.Parts(tx, bucket, selection, chosen)
            rows = parts.windows(selection.aggregate) if selection.aggregate else parts.raw()
        return bool(rows)


def refused(attempt: Callable[[], Any]) -> Any:
    """What an attempt gives; None where it fails, in whatever way."""
    try:
        return attempt()
    except (BucketGone, DBAPIError, MultipleResultsFound, psycopg.Error):
        return None


@pytest.fixture
def theatre(
    app: Any, admin: Caller, org: int, new_org: Callable[[], int], database: Database, superuser: Any
) -> Theatre:
    # The victim's organization is made first: what is found by chance is the victim's.
    victims = Caller(app, new_org())
    return Theatre(Caller(app, org), victims, database, superuser)


def test_with_every_check_in_place(theatre: Theatre) -> None:
    assert all(theatre.rows().values())
    with held(theatre):
        pass


@pytest.mark.parametrize(("module", "condition"), list(conditions(MODULES)))
def test_without_a_condition(theatre: Theatre, monkeypatch: pytest.MonkeyPatch, module: str, condition: str) -> None:
    with held(theatre):
        take_out(monkeypatch, module, MODULES[module], condition)


def test_without_any_condition(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(theatre):
        for module, pattern in MODULES.items():
            take_out(monkeypatch, module, pattern)


def no_organization(patch: pytest.MonkeyPatch) -> None:
    """The service never says whose transactions are."""

    def transaction(
        self: Database, _org: int | None = None, *, snapshot: bool = False, whole: Any = _TRANSACTION
    ) -> Any:
        return whole(self, snapshot=snapshot)

    patch.setattr(Database, "transaction", transaction)


def series_without_asking(_tx: object, _bucket: int, epoch: int, slots: list[Slot]) -> None:
    for slot in slots:
        slot.known = Known(1, slot.kind, epoch)


_TRANSACTION = Database.transaction
OTHERS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "the organization given to transaction": no_organization,
    "tenancy.owns": lambda patch: patch.setattr(tenancy, "owns", lambda *_: True),
    "tenancy.check_organization": lambda patch: patch.setattr(tenancy, "check_organization", lambda *_: None),
    "the organization of buckets that are remembered": lambda patch: patch.setattr(
        "services.influx.src.memory.Memory.get", by_name_only
    ),
    "the bucket's series": lambda patch: patch.setattr(db_write, "register", series_without_asking),
}
"""Checks that are no conditions in SQL."""


def test_without_asking_whose_a_bucket_is_in_any_place(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    """The victim's bucket is in the memory, the attacker asks for it by name, and is given it."""
    with held(theatre):
        for check in ("tenancy.owns", "the organization of buckets that are remembered"):
            OTHERS[check](monkeypatch)
        bucket = {"bucket": theatre.default(theatre.victim)}
        assert theatre.victim.query(**bucket).status_code == 200
        assert theatre.attacker.query(**bucket).status_code == 404
        theatre.victim.query(**bucket)
        assert theatre.attacker.write({"measurement": "m", "fields": {FIELD: 1.5}}, **bucket).status_code == 404


def by_name_only(self: Any, key: Any) -> Any:
    return next((value for kept, value in self._entries.items() if kept[1:] == key[1:]), None)


@pytest.mark.parametrize("check", OTHERS)
def test_without(theatre: Theatre, monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    with held(theatre):
        OTHERS[check](monkeypatch)


# The last steps by themselves, past everything that is asked before


@pytest.mark.parametrize("store", [db_write.append, db_write.upsert])
@pytest.mark.parametrize("whose", ["the attacker's", "nobody's"])
@pytest.mark.parametrize("time", [AT, 2**61], ids=["there already", "new"])
@pytest.mark.parametrize("ward", [False, True], ids=["kept for ever", "expiring"])
def test_points_put_into_another_organizations_bucket(
    theatre: Theatre, store: Callable[..., None], whose: str, time: int, ward: bool
) -> None:
    victim = theatre.victim
    bucket = theatre.buckets[theatre.ward(victim) if ward else theatre.default(victim)]
    before = theatre.rows()
    named = theatre.attacker.org_id if whose == "the attacker's" else None
    with pytest.raises((DBAPIError, psycopg.Error)) as caught, theatre.database.transaction(named) as tx:
        store(tx, int(bucket.id), [Strand(float, theatre.series, [time], [666.5])])
    cause = getattr(caught.value, "orig", caught.value)
    assert isinstance(cause, psycopg.errors.InsufficientPrivilege)
    assert theatre.rows() == before


def test_a_foreign_series_in_the_own_bucket_changes_nothing(theatre: Theatre) -> None:
    before = theatre.rows()
    with theatre.database.transaction(theatre.attacker.org_id) as tx:
        bucket = int(theatre.buckets[theatre.default(theatre.attacker)].id)
        db_write.append(tx, bucket, [Strand(float, theatre.series, [AT], [666.5])])
    assert theatre.rows() == before
    assert "666.5" not in theatre.victim.query().text


REFUSED = r"permission denied|row-level security|not of the organization|must be owner"


def test_no_statement_finds_anothers_rows(theatre: Theatre) -> None:
    """Whatever the service's role may say, without any condition at all."""
    bucket, series = theatre.buckets[theatre.default(theatre.victim)], theatre.series
    ward = theatre.buckets[theatre.ward(theatre.victim)]
    before = theatre.rows()
    own = int(theatre.buckets[theatre.default(theatre.attacker)].id)
    found = {
        "SELECT DISTINCT org_id FROM heartguard_core.buckets": {theatre.attacker.org_id},
        f"SELECT field FROM heartguard_core.fields WHERE field = 'note_{CANARY}'": set(),
        f"SELECT DISTINCT bucket_id FROM heartguard_core.series WHERE bucket_id = {bucket.id}": set(),
        f"SELECT DISTINCT bucket_id FROM heartguard_core.points WHERE bucket_id IN ({bucket.id}, {own})": {own},
        f"SELECT id FROM heartguard_core.choose_series({bucket.id}, 'm', NULL, NULL, 9)": set(),
        f"UPDATE heartguard_core.buckets SET description = 'x' WHERE id = {bucket.id} RETURNING id": set(),
        f"UPDATE heartguard_core.points SET value_float = 666 WHERE series_id = {series} RETURNING ts": set(),
        f"SELECT heartguard_core.drop_bucket({theatre.victim.org_id}, '{bucket.name}')": {False},
        f"SELECT heartguard_core.forget_series({bucket.id}, 10)": {0},
        f"SELECT heartguard_core.expire({ward.id}, {2**62}, 10)": {0},
    }
    for statement, expected in found.items():
        with theatre.database.transaction(theatre.attacker.org_id) as tx:
            assert set(tx.execute(text(statement)).scalars()) == expected, statement
    for statement in (
        f"SELECT FROM heartguard_core.points_{bucket.id}",
        f"UPDATE heartguard_core.points_{bucket.id} SET value_float = 666",
        f"DELETE FROM heartguard_core.points_{bucket.id}",
        f"TRUNCATE heartguard_core.points_{bucket.id}",
        f"ALTER TABLE heartguard_core.points_{bucket.id} DISABLE TRIGGER check_bucket",
        f"INSERT INTO heartguard_core.points_{bucket.id} (bucket_id, series_id, ts) VALUES ({bucket.id}, {series}, 1)",
        f"INSERT INTO heartguard_core.points (bucket_id, series_id, ts) VALUES ({bucket.id}, {series}, 1)",
        f"INSERT INTO heartguard_core.fields VALUES ({bucket.id}, 'm', 'x', 'float')",
        f"SELECT heartguard_core.create_bucket({theatre.victim.org_id}, 'org_{theatre.victim.org_id}_y', 0, NULL, 0)",
        f"SELECT heartguard_core.open_partition({bucket.id})",
        "DELETE FROM heartguard_core.points",
        "SELECT tags FROM heartguard_core.series",
        "SELECT FROM heartguard_core.dropped_buckets",
    ):
        with (
            pytest.raises(DBAPIError, match=REFUSED),
            theatre.database.transaction(theatre.attacker.org_id) as tx,
        ):
            tx.execute(text(statement))
    assert theatre.rows() == before


@pytest.mark.parametrize(
    ("signature", "condition"),
    [
        ("choose_series(bigint, text, text[], jsonb, bigint)", "AND b.org_id = org_id()"),
        ("drop_bucket(bigint, text)", "org_id = p_org AND"),
        ("check_bucket()", "AND b.org_id = org_id()"),
    ],
)
def test_the_owners_functions_are_held_too(theatre: Theatre, signature: str, condition: str) -> None:
    with theatre.superuser.transaction() as tx:
        function = tx.execute(
            text(f"SELECT pg_get_functiondef('heartguard_core.{signature}'::regprocedure)")
        ).scalar_one()
        assert condition in function
        tx.exec_driver_sql(function.replace(condition, "").replace("%", "%%"))
    try:
        with held(theatre):
            pass
        test_no_statement_finds_anothers_rows(theatre)
    finally:
        with theatre.superuser.transaction() as tx:
            tx.exec_driver_sql(function.replace("%", "%%"))


def test_buckets_made_before_are_held_too(postgres_store: Postgres, superuser: Any) -> None:
    with superuser.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE earlier OWNER heartguard"))
    owner, url = (
        url.replace("/heartguard_core?", "/earlier?")
        for url in (postgres_store.url, postgres_store.url_for("timeseries"))
    )
    migrate(owner, "0009")
    with psycopg.connect(owner) as connection:
        for org in (1, 2):
            made = "SELECT heartguard_core.create_bucket(%s, %s, 7200, NULL, 0)"
            connection.execute(made, [org, f"org_{org}"])
    migrate(owner)
    database = Database(url, service="tests")
    store = PostgresStore(database)
    try:
        one, other = store.bucket(1, "org_1"), store.bucket(2, "org_2")
        assert one is not None
        assert other is not None
        for bucket in (one, replace(one, id=other.id)):
            batch = store.batch(bucket)
            add(batch, SERIES, AT, {FIELD: 1.5})
            if bucket is one:
                batch.write()
            else:
                with pytest.raises(BucketGone):
                    batch.write()
        with pytest.raises(psycopg.errors.InsufficientPrivilege), database.transaction(1) as tx:
            db_write.append(tx, int(other.id), [Strand(float, 1, [AT], [1.5])])
    finally:
        database.close()


# The counter-proof

TABLES = ("buckets", "fields", "series", "points")


def test_without_postgresqls_part_the_attacks_get_through(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    before = theatre.rows()
    with unprotected(theatre):
        take_out(monkeypatch, f"{SOURCE}.db_write", IN_TEXT, "org_id = :org")
        assert any(leak.startswith("id of") for leak in theatre.attack())
        assert theatre.rows()["points"] != before["points"]
        for module, pattern in MODULES.items():
            take_out(monkeypatch, module, pattern)
        leaks = theatre.attack()
    assert any(leak.startswith("GET /timeseries/buckets") for leak in leaks)
    assert any("field_types" in leak for leak in leaks)


@contextmanager
def unprotected(theatre: Theatre) -> Iterator[None]:
    def switch(how: str) -> None:
        with theatre.superuser.transaction() as tx:
            for table in TABLES:
                tx.exec_driver_sql(f"ALTER TABLE heartguard_core.{table} {how} ROW LEVEL SECURITY")
            for bucket in theatre.buckets.values():
                tx.exec_driver_sql(f"ALTER TABLE heartguard_core.points_{bucket.id} {how} TRIGGER check_bucket")

    switch("DISABLE")
    try:
        yield
    finally:
        switch("ENABLE")
