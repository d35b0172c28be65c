"""Batches of points that can be told apart, in every format, and read back."""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from heartguard.codec import encode
from heartguard.models.timeseries import Point, WriteRequest
from heartguard.negotiation import Format
from heartguard.timestamps import parse_time
from services.influx.src.times import format_time

from .client import JSON, LINES, XML, Client

MEASUREMENT, FIELD = "heart_rate", "bpm"
PAGE = 50_000
SECOND = 1_000_000_000


@dataclass(frozen=True)
class Batch:
    """Points of one series: times in nanoseconds, all different, and values."""

    user_id: str
    times: list[int]
    values: list[float]

    def lines(self) -> bytes:
        beginning = f"{MEASUREMENT},user_id={self.user_id} {FIELD}="
        pairs = zip(self.times, self.values, strict=True)
        return "".join(f"{beginning}{value} {time}\n" for time, value in pairs).encode()

    def body(self, content: str) -> bytes:
        if content == LINES:
            return self.lines()
        tags = {"user_id": self.user_id}
        points = [
            Point(measurement=MEASUREMENT, tags=tags, fields={FIELD: value}, timestamp=format_time(time))
            for time, value in zip(self.times, self.values, strict=True)
        ]
        return encode(WriteRequest(points=points), {JSON: Format.JSON, XML: Format.XML}[content])

    def stored(self) -> dict[int, float]:
        return dict(zip(self.times, self.values, strict=True))


class _Result(msgspec.Struct):
    time: str
    value: float


class _Results(msgspec.Struct):
    results: list[_Result]


_decoder = msgspec.json.Decoder(_Results)


def read(client: Client, user_id: str, start: int, stop: int, bucket: str = "") -> dict[int, float]:
    """All points of a series in a range, page by page."""
    found: dict[int, float] = {}
    for page in _pages(client, user_id, start, stop, bucket):
        found |= page
    return found


def _pages(client: Client, user_id: str, start: int, stop: int, bucket: str) -> Iterator[dict[int, float]]:
    asked: dict[str, object] = {
        "measurement": MEASUREMENT,
        "tags": {"user_id": user_id},
        "limit": PAGE,
        "range_stop": format_time(stop),
    }
    if bucket:
        asked["bucket"] = bucket
    while start < stop:
        answer = client.query(**asked, range_start=format_time(start)).expect(200)
        page = {parse_time(row.time): row.value for row in _decoder.decode(answer.body).results}
        yield page
        if len(page) < PAGE:
            return
        start = max(page) + 1
