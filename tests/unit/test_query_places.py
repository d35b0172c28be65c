"""The places that queries of one organization have."""

import threading
from contextlib import ExitStack

import pytest

from services.influx.src import query_places
from services.influx.src.errors import TooManyQueries
from services.influx.src.query_places import WAITING, QueryPlaces


def test_an_organization_has_its_places_and_others_have_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_places, "WAIT_SECONDS", 0.0)
    places = QueryPlaces(2)
    with ExitStack() as taken:
        for org in (7, 7, 8, 8):
            taken.enter_context(places.of(org))
        with pytest.raises(TooManyQueries), places.of(7):
            pass
    with places.of(7), places.of(7):
        pass
    assert places._shares == {}, "nothing is remembered of who has no query"


def test_a_place_is_given_back_when_a_query_fails() -> None:
    places = QueryPlaces(1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), places.of(7):
            raise ZeroDivisionError
    assert places._shares == {}


def test_a_few_wait_for_a_place_and_the_rest_are_sent_away() -> None:
    places = QueryPlaces(1)
    served: list[int] = []
    waiting = threading.Semaphore(0)

    def ask(number: int) -> None:
        waiting.release()
        with places.of(7):
            served.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(WAITING)]
    with places.of(7):
        for thread in threads:
            thread.start()
            waiting.acquire(timeout=10)
        while places._shares[7].waiting < WAITING:
            pass
        with pytest.raises(TooManyQueries), places.of(7):
            pass
        assert served == []
    for thread in threads:
        thread.join(10)
    assert sorted(served) == list(range(WAITING))
