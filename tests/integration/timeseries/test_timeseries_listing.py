"""Finding buckets in an InfluxDB that has very many of them."""

import random
from collections.abc import Callable, Iterator

import pytest
from flask import Flask

from heartguard.errors import Unavailable
from services.influx.src.influx_buckets import PAGE, beginning_with
from services.influx.src.influx_client import InfluxClient
from services.influx.src.influx_http import Json

from . import fake_influx
from .conftest import Caller, running
from .fake_influx import FakeInflux

ORGANIZATIONS = 6_000
NAMED = [f"org_7_{number:03d}" for number in range(150)]


@pytest.fixture
def fake() -> Iterator[tuple[str, FakeInflux]]:
    with fake_influx.serving() as found:
        yield found


@pytest.fixture
def app(fake: tuple[str, FakeInflux]) -> Iterator[Flask]:
    with running(fake_influx.environ(fake[0])) as app:
        yield app


def fill(fake: FakeInflux) -> None:
    for name in [*(f"org_{number}" for number in range(1, ORGANIZATIONS)), *NAMED, "org_7_", "org_70_x", "other"]:
        made = fake_influx.Bucket(f"{len(fake.buckets):016x}", name, 0, None, fake_influx.LONG_AGO)
        fake.buckets[made.id] = made


@pytest.mark.parametrize("shows_its_own", [True, False])
def test_of_thousands_of_organizations_one_s_buckets_are_found(
    app: Flask, fake: tuple[str, FakeInflux], shows_its_own: bool
) -> None:
    fill(fake[1])
    fake[1].shows_its_own = shows_its_own
    answer = Caller(app, 7).send("GET", "/timeseries/buckets")
    assert answer.json is not None
    assert [bucket["bucket"] for bucket in answer.json["buckets"]] == ["org_7", *NAMED]
    assert len(fake[1].asked) < 25, "not page by page"


@pytest.mark.parametrize("org", [1, 5_999, 42])
def test_who_has_a_default_bucket_only_is_shown_that(app: Flask, fake: tuple[str, FakeInflux], org: int) -> None:
    fill(fake[1])
    answer = Caller(app, org).send("GET", "/timeseries/buckets")
    assert answer.json is not None
    assert [bucket["bucket"] for bucket in answer.json["buckets"]] == [f"org_{org}"]


def test_a_bucket_is_found_made_written_and_dropped_by_name(app: Flask, fake: tuple[str, FakeInflux]) -> None:
    """Each in a few questions, however many buckets there are."""
    fill(fake[1])
    admin = Caller(app, 7)
    point = {"measurement": "m", "fields": {"f": 1}, "timestamp": "2024-06-01T10:00:00Z"}
    for use, most in (
        (lambda: admin.create("org_7_new"), 25),
        (lambda: admin.write(point, bucket="org_7_new"), 4),
        (lambda: admin.query(bucket="org_7_new"), 1),
        (lambda: admin.send("DELETE", "/timeseries/buckets/org_7_new"), 2),
    ):
        fake[1].asked.clear()
        assert use().status_code < 300
        assert len(fake[1].asked) <= most


def test_all_organizations_are_known(fake: tuple[str, FakeInflux]) -> None:
    """Nothing ends the list but its end: of its first page some tokens see less than was asked for."""
    fill(fake[1])
    fake[1].shows_its_own = False
    client = InfluxClient(fake[0], fake_influx.TOKEN, fake_influx.ORG)
    assert len(client.buckets()) == ORGANIZATIONS - 1 + len(NAMED) + 3
    client.close()


def bucket(name: str) -> Json:
    return {"name": name}


class Listed:
    """A list of buckets of which something becomes before it is looked at for the ``number``th time, each time."""

    def __init__(self, names: list[str], number: int = -1, become: Callable[[list[str]], object] = list.sort) -> None:
        self.names = names
        self.looks = 0
        self.number = number
        self.become = become

    def __call__(self, place: int, limit: int) -> list[Json]:
        self.looks += 1
        if self.looks == self.number or (self.looks > self.number > 0 and limit == PAGE):
            self.become(self.names)
        return [bucket(name) for name in self.names[place : place + limit]]


def found(listed: Listed, beginning: str) -> list[str]:
    return [bucket["name"] for bucket in beginning_with(beginning, listed)]


@pytest.mark.parametrize("size", [0, 1, 97, 98, 99, 100, 101, 199, 200, 201, 399, 400, 1000])
def test_whatever_begins_so_is_found(size: int) -> None:
    chance = random.Random(size)
    for _ in range(30):
        names = sorted({f"org_{chance.randrange(1, 30)}_{chance.randrange(2 * size)}" for _ in range(size)})
        for beginning in ("", "org_1_", "org_29_", "org_7_", "org_7_3", "a", "z"):
            assert found(Listed(names), beginning) == [name for name in names if name.startswith(beginning)]


def test_a_list_that_is_not_by_name_is_read_to_its_end() -> None:
    names = [f"org_{number % 30}_{number}" for number in range(1000)]
    assert found(Listed(names), "org_7_") == [name for name in names if name.startswith("org_7_")]


def drop_some(names: list[str]) -> None:
    del names[:150]


def test_buckets_that_are_dropped_meanwhile_have_nothing_passed_over() -> None:
    names = sorted(f"org_{number}_{n}" for number in range(1, 300) for n in range(20))
    mine = [name for name in names if name.startswith("org_50_")]
    for number in range(2, 25):
        assert found(Listed(list(names), number, lambda names: names.__delitem__(slice(2))), "org_50_") == mine
    with pytest.raises(Unavailable):
        found(Listed(list(names), 3, drop_some), "org_50_")


def test_nothing_is_passed_over_at_the_end_of_the_list_either() -> None:
    names = [f"a_{number:04d}" for number in range(300)]

    def drop_all_but_a_page(names: list[str]) -> None:
        del names[: max(len(names) - PAGE + 1, 0)]

    listed = Listed(names, 5, drop_all_but_a_page)
    assert found(listed, "a_")[-1] == "a_0299"
