"""Buckets of InfluxDB are dropped only when nobody reads them: it would crash, for everybody."""

import threading
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from services.influx.src import influx_store
from services.influx.src.influx_store import DROPPED, MOST_DROPPED, InfluxStore

from .conftest import Caller, influx_only
from .influx import Influx

pytestmark = influx_only


def dropped(influx: Influx, org: int) -> list[dict[str, Any]]:
    return [bucket for bucket in influx.buckets() if bucket["name"].startswith(f"{DROPPED}org_{org}_")]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every query had ended long ago."""
    monkeypatch.setattr(influx_store, "READ_FOR", timedelta(seconds=-2))


def test_a_dropped_bucket_is_out_of_reach_at_once_and_removed_later(
    admin: Caller,
    store: InfluxStore,
    other_store: InfluxStore,
    influx: Influx,
    org: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = f"org_{org}_ward"
    assert admin.create(name).status_code == 201
    assert admin.lines("m f=1 1", f"?bucket={name}").status_code == 200
    assert admin.send("DELETE", f"/timeseries/buckets/{name}").status_code == 204
    assert admin.query(bucket=name).status_code == 404
    assert admin.lines("m f=1 1", f"?bucket={name}").status_code == 404
    assert name not in admin.send("GET", "/timeseries/buckets").text
    assert len(dropped(influx, org)) == 1
    store.sweep()
    assert len(dropped(influx, org)) == 1, "a query may read it still"
    monkeypatch.setattr(influx_store, "READ_FOR", timedelta(seconds=-2))
    store.sweep()
    assert dropped(influx, org) == []
    other_store.sweep()


def test_a_bucket_of_the_same_name_is_a_new_one(admin: Caller, store: InfluxStore, at_once: None, org: int) -> None:
    name = f"org_{org}_ward"
    for number in range(3):
        assert admin.create(name).status_code == 201
        assert admin.lines(f"m f={number} 1", f"?bucket={name}").status_code == 200
        assert [row[2] for row in admin.rows(bucket=name)] == [number]
        assert admin.send("DELETE", f"/timeseries/buckets/{name}").status_code == 204
    store.sweep()


def test_only_what_was_dropped_is_removed(
    admin: Caller, store: InfluxStore, influx: Influx, at_once: None, org: int
) -> None:
    """Whoever runs InfluxDB may have buckets of his own whose names begin so."""
    assert admin.create(f"org_{org}_x").status_code == 201
    bucket = influx.bucket(f"org_{org}_x")
    influx.change(bucket["name"], name=f"{DROPPED}org_{org}_mine")
    store.sweep()
    assert [found["id"] for found in dropped(influx, org)] == [bucket["id"]]
    influx.drop(bucket["id"])


def test_so_many_may_wait_to_be_removed_and_no_more(admin: Caller, org: int, store: InfluxStore, at_once: None) -> None:
    """They cost InfluxDB files until then."""
    name = f"org_{org}_x"
    for _ in range(MOST_DROPPED):
        assert admin.create(name).status_code == 201
        assert admin.send("DELETE", f"/timeseries/buckets/{name}").status_code == 204
    assert admin.create(name).status_code == 201
    refused = admin.send("DELETE", f"/timeseries/buckets/{name}")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60")
    assert admin.query(bucket=name).status_code == 200
    store.sweep()
    assert admin.send("DELETE", f"/timeseries/buckets/{name}").status_code == 204


def test_readers_get_an_answer_or_hear_that_it_is_gone(app: Flask, org: int, store: InfluxStore) -> None:
    admin = Caller(app, org)
    name = f"org_{org}_read"
    lines = "\n".join(f"m,d={number % 7} f={number} {number}" for number in range(5_000))
    answers: Counter[int] = Counter()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            answers[admin.query(bucket=name, limit=10_000).status_code] += 1

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(8):
            assert admin.create(name).status_code == 201
            assert admin.lines(lines, f"?bucket={name}").status_code == 200
            assert admin.query(bucket=name, limit=1).status_code == 200
            assert admin.send("DELETE", f"/timeseries/buckets/{name}").status_code == 204
    finally:
        stop.set()
        for reader in readers:
            reader.join(30)
    assert set(answers) == {200, 404}
    assert org in store.organizations() or not admin.rows()
