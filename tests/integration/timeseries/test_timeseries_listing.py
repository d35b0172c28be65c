"""Finding buckets in an InfluxDB that has very many of them."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from flask import Flask

from heartguard.errors import Unavailable
from services.influx.src.influx_buckets import PAGE, beginning_with
from services.influx.src.influx_client import InfluxClient
from services.influx.src.influx_http import Json

from .conftest import Caller, running
from .faults import Proxy
from .influx import Influx
from .organizations import Organizations, drop_named

OTHERS = 260
"""Organizations."""
NAMED = 150
MOST_ASKED = 25


@dataclass(frozen=True)
class Crowd:
    """An InfluxDB with many organizations, of which one has many buckets."""

    first: int
    owner: int
    last: int
    names: list[str]

    @property
    def owned(self) -> list[str]:
        return [f"org_{self.owner}", *(f"org_{self.owner}_{number:03d}" for number in range(NAMED))]


@pytest.fixture(scope="module")
def crowd(influx: Influx, organizations: Organizations) -> Iterator[Crowd]:
    before = organizations.given
    numbers = [organizations.new() for _ in range(OTHERS)]
    crowd = Crowd(numbers[0], numbers[OTHERS // 2], numbers[-1], [f"org_{number}" for number in numbers])
    beyond = [f"org_{crowd.owner}_", f"org_{crowd.owner}0_x"]
    organization = influx.organization()
    with ThreadPoolExecutor(4) as threads:
        names = {*crowd.names, *crowd.owned, *beyond}
        list(threads.map(lambda name: influx.create(name, organization), sorted(names)))
    yield crowd
    drop_named(influx, organizations.names(before))


@contextmanager
def serving(influx: Influx, proxy: Proxy, token: str) -> Iterator[Flask]:
    with running(influx.environ(INFLUX_URL=proxy.url, INFLUX_TOKEN=token)) as app:
        yield app


@pytest.fixture
def app(influx: Influx, proxy: Proxy) -> Iterator[Flask]:
    with serving(influx, proxy, influx.address.token) as app:
        yield app


def listed(app: Flask, org: int) -> list[str]:
    answer = Caller(app, org).send("GET", "/timeseries/buckets")
    assert answer.json is not None, answer.text
    return [bucket["bucket"] for bucket in answer.json["buckets"]]


def test_of_many_organizations_one_s_buckets_are_found(app: Flask, crowd: Crowd, proxy: Proxy) -> None:
    proxy.asked.clear()
    assert listed(app, crowd.owner) == crowd.owned
    assert len(proxy.asked) <= MOST_ASKED


def test_they_are_found_by_a_token_that_does_not_see_influxdb_s_own(influx: Influx, crowd: Crowd, proxy: Proxy) -> None:
    """The first page has fewer buckets then than were asked for."""
    with influx.token_for_buckets() as token, serving(influx, proxy, token) as app:
        proxy.asked.clear()
        assert listed(app, crowd.owner) == crowd.owned
        assert len(proxy.asked) <= MOST_ASKED
        client = InfluxClient(proxy.url, token, influx.address.org)
        assert {*crowd.names, *crowd.owned} <= {bucket["name"] for bucket in client.buckets()}
        client.close()


@pytest.mark.parametrize("which", ["first", "last"])
def test_who_has_a_default_bucket_only_is_shown_that(app: Flask, crowd: Crowd, which: str) -> None:
    org = getattr(crowd, which)
    assert listed(app, org) == [f"org_{org}"]


def test_a_bucket_is_found_made_written_and_dropped_by_name(app: Flask, crowd: Crowd, proxy: Proxy) -> None:
    """Each in a few questions, however many buckets there are."""
    admin = Caller(app, crowd.last)
    name = f"org_{crowd.last}_new"
    point = {"measurement": "m", "fields": {"f": 1}, "timestamp": "2024-06-01T10:00:00Z"}
    for use, most in (
        (lambda: admin.create(name), MOST_ASKED),
        (lambda: admin.write(point, bucket=name), 4),
        (lambda: admin.query(bucket=name), 6),
        (lambda: admin.send("DELETE", f"/timeseries/buckets/{name}"), MOST_ASKED + 2),
    ):
        proxy.asked.clear()
        assert use().status_code < 300
        assert len(proxy.asked) <= most


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


def test_of_thousands_of_organizations_the_list_is_not_read_page_by_page() -> None:
    names = sorted(
        [*(f"org_{number}" for number in range(1, 10_000)), *(f"org_7_{number:03d}" for number in range(150))]
    )
    for beginning, most in (("org_7_", 25), ("org_1_", 25), ("org_9999_", 25)):
        listed = Listed(names)
        assert len(found(listed, beginning)) == (150 if beginning == "org_7_" else 0)
        assert listed.looks < most


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
