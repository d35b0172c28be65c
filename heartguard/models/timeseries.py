"""Types of the time-series service."""

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Annotated, Literal

from msgspec import Meta

from ..timestamps import parse_time, parse_times
from .base import TIMESTAMP, UNSET, Answer, Request, RequestPart, Text, Timestamp, UnsetType, full

BucketName = Annotated[
    str, full("[a-z0-9_]{1,64}", description="A bucket's name: 1 to 64 lower-case letters, digits and underscores")
]
Moment = Annotated[
    str,
    full(
        rf"now\(\)|-(0|[1-9][0-9]{{0,8}})(s|m|h|d)|{TIMESTAMP}",
        description="A time in UTC by RFC 3339, now(), or a duration back from now such as -15m",
    ),
]
Window = Annotated[str, full("[1-9][0-9]{0,8}(s|m|h|d)", description="A duration such as 90s, 15m, 1h or 7d")]
Name = Annotated[Text, Meta(min_length=1, max_length=256)]
Aggregate = Literal["mean", "median", "max", "min", "count", "sum", "first", "last", "stddev", "spread"]

FieldValue = float | bool | str
"""In JSON and XML every number is a float; only line protocol (``72i``) makes an ``int``."""

MAX_POINTS = 10_000
MAX_RESULTS = 100_000
MAX_TAGS = 64
MAX_FIELDS = 256


# It holds strings and numbers only, and so can be in no cycle: to leave it out halves the cost of reading a batch.
class Point(RequestPart, gc=False):
    """What was measured at one time."""

    measurement: Name
    fields: Annotated[dict[Text, float | bool | Text], Meta(min_length=1, max_length=MAX_FIELDS)]
    tags: Annotated[dict[Text, Text], Meta(max_length=MAX_TAGS)] = {}
    timestamp: Timestamp | UnsetType = UNSET


class WriteRequest(Request, dict=True):
    """A batch of points: all are written, or none."""

    points: Annotated[list[Point], Meta(min_length=1, max_length=MAX_POINTS)]
    bucket: BucketName | UnsetType = UNSET
    org: Text | UnsetType = UNSET

    def __post_init__(self) -> None:
        _ = self.times

    @cached_property
    def times(self) -> Sequence[int | None]:
        """The points' times in nanoseconds since the epoch; ValueError, which makes a 422, where one is none."""
        texts = [point.timestamp for point in self.points if point.timestamp is not UNSET]
        if len(texts) == len(self.points):
            return parse_times(texts)
        return [None if point.timestamp is UNSET else parse_time(point.timestamp) for point in self.points]


class WriteResult(Answer):
    """``success`` means durable."""

    success: bool
    inserted: int


class QueryRequest(Request):
    """Points of one measurement in ``[range_start, range_stop)``, raw or in windows."""

    measurement: Name
    bucket: BucketName | UnsetType = UNSET
    range_start: Moment = "-1h"
    range_stop: Moment = "now()"
    fields: Annotated[list[Name], Meta(min_length=1, max_length=MAX_FIELDS)] | UnsetType = UNSET
    tags: Annotated[dict[Text, Text], Meta(max_length=MAX_TAGS)] = {}
    aggregate: Aggregate | UnsetType = UNSET
    window: Window = "1m"
    limit: Annotated[int, Meta(ge=1, le=MAX_RESULTS)] = 1000


class Result(Answer):
    """One value of one field of one series."""

    time: str
    """RFC 3339 to the nanosecond; with an aggregate, the window's stop."""
    field: str
    value: int | float | bool | str
    tags: dict[str, str]


class QueryResult(Answer):
    results: list[Result]
    count: int


class BucketCreate(Request):
    """Make a bucket. ``retention_seconds`` 0 keeps points for ever."""

    bucket: BucketName
    retention_seconds: Annotated[int, Meta(ge=0, le=3_153_600_000)] = 0
    description: Annotated[Text, Meta(max_length=500)] | UnsetType = UNSET


class Bucket(Answer):
    bucket: str
    retention_seconds: int
    created_at: datetime
    description: str | UnsetType = UNSET


class Buckets(Answer):
    buckets: list[Bucket]
