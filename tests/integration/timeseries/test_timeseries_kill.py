"""``kill -9`` in the middle of a write load: every acknowledged point is there afterwards, and no batch in parts.

Writers send batch after batch, each of a second of its own; one that fails they send again, with other values,
until it is acknowledged. The service and PostgreSQL are killed in turns, PostgreSQL with all its processes at once.

``HEARTGUARD_KILLS=50`` does it that often.
"""

import http.client
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from heartguard.local.files import private_folder

from ..callers import SECRET, authorization
from ..killing import Site

KILLS = int(os.environ.get("HEARTGUARD_KILLS", "2"))
WRITERS = 3
POINTS = 200
"""In a batch."""
LONGEST_LOAD = 0.8
"""Seconds until the next kill, at the most."""
EVERYTHING = {
    "measurement": "m", "range_start": "1970-01-01T00:00:00Z", "window": "1s", "limit": 100_000
}  # fmt: skip


class TimeSeriesSite(Site):
    def send(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and answer. Raises OSError or HTTPException where the service goes away meanwhile."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            headers = {**authorization(org_id=1), "Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


class Writer:
    """Sends batches until told to stop; ``acknowledged`` counts those that are safe."""

    def __init__(self, site: TimeSeriesSite, number: int) -> None:
        self.acknowledged = 0
        self.tags = {"writer": str(number)}
        self.statuses: set[int] = set()
        self._site = site
        self._tries = 0

    def write(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._tries += 1
            try:
                status, _ = self._site.send("/timeseries/write", {"points": self._points()})
            except (OSError, http.client.HTTPException):
                continue
            self.statuses.add(status)
            if status == 200:
                self.acknowledged += 1

    def _points(self) -> list[dict[str, Any]]:
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.acknowledged))
        return [
            {
                "measurement": "m",
                "tags": self.tags,
                "fields": {"try": self._tries, "text": str(self._tries)},
                "timestamp": f"{second}.{n:03d}Z",
            }
            for n in range(POINTS)
        ]

    def check(self) -> None:
        """Each batch is there as a whole, and of one try: all that were acknowledged, and at most one more."""
        counts = self._ask(aggregate="count")
        by_field = {field: [value for of, value in counts if of == field] for field in ("try", "text")}
        assert by_field["try"] == by_field["text"]
        assert set(by_field["try"]) <= {POINTS}
        assert self.acknowledged <= len(by_field["try"]) <= self.acknowledged + 1
        assert {value for _, value in self._ask(aggregate="spread", fields=["try"])} <= {0}

    def _ask(self, **question: Any) -> list[tuple[str, float]]:
        status, answer = self._site.send("/timeseries/query", {**EVERYTHING, "tags": self.tags, **question})
        assert status == 200, answer
        return [(row["field"], row["value"]) for row in answer["results"]]


@pytest.fixture
def site(stores_folder: Path, free_port: Callable[[], int]) -> Iterator[TimeSeriesSite]:
    folder = private_folder(stores_folder / "killed")
    site = TimeSeriesSite(folder, "timeseries", free_port(), {"JWT_SECRET": SECRET})
    yield site
    site.stop()


def test_what_was_acknowledged_survives_and_nothing_is_half_written(site: TimeSeriesSite) -> None:
    chance = random.Random(KILLS)
    writers = [Writer(site, number) for number in range(WRITERS)]
    for number in range(KILLS):
        stop = threading.Event()
        threads = [threading.Thread(target=writer.write, args=[stop]) for writer in writers]
        for thread in threads:
            thread.start()
        time.sleep(chance.uniform(0.1, LONGEST_LOAD))
        if number % 2:
            site.kill_postgres()
        else:
            site.kill_service()
        stop.set()
        for thread in threads:
            thread.join(30)
        for writer in writers:
            writer.check()
    assert all(writer.acknowledged for writer in writers)
    assert set().union(*(writer.statuses for writer in writers)) <= {200, 503}
    print(f"{KILLS} kills, {sum(writer.acknowledged for writer in writers)} batches acknowledged")
