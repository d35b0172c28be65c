import time

import pytest

from heartguard.errors import Unavailable
from services.gateway.src import instruments
from services.gateway.src.breaker import Breaker


def state(name: str) -> float:
    return instruments.CIRCUIT.labels(name)._value.get()


def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker("row", failures=3, pause=60)
    for _ in range(2):
        breaker.enter()
        breaker.failed()
    breaker.enter()
    breaker.succeeded()
    for _ in range(3):
        breaker.enter()
        breaker.failed()
    with pytest.raises(Unavailable) as refused:
        breaker.enter()
    assert refused.value.status == 503
    assert int(refused.value.headers["Retry-After"]) >= 1
    assert state("row") == instruments.OPEN


def test_half_open_lets_one_request_try() -> None:
    breaker = Breaker("half", failures=1, pause=0.02)
    breaker.enter()
    breaker.failed()
    time.sleep(0.03)
    breaker.enter()
    assert state("half") == instruments.HALF_OPEN
    with pytest.raises(Unavailable):
        breaker.enter()
    breaker.failed()
    with pytest.raises(Unavailable):
        breaker.enter()
    time.sleep(0.03)
    breaker.enter()
    breaker.succeeded()
    breaker.enter()
    assert state("half") == instruments.CLOSED
