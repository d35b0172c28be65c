"""Heart data: made into points, sent, asked for, shown."""

import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ...models.timeseries import MAX_RESULTS, FieldValue, Point, QueryRequest, Result, WriteRequest, WriteResult
from ...timestamps import parse_time
from .company import Company, Person
from .recording import Recording

BATCH = 200
"""Points a request: small, so that the progress bar has something to show."""

MEASUREMENTS = ("heart_rate", "heart_beat")

BARS = "▁▂▃▄▅▆▇█"


def points(recording: Recording, start: int, user_id: int) -> Iterator[Point]:
    """Heart rate at 1 Hz and every beat with the interval before it; ``start`` is in Unix seconds."""
    tags = {"user_id": str(user_id), "device": "demo"}
    for second, bpm in enumerate(recording.rates):
        yield Point(measurement="heart_rate", tags=tags, fields={"bpm": bpm}, timestamp=rfc3339(start + second))
    for offset, interval in zip(recording.beats, recording.rr_intervals, strict=True):
        fields: dict[str, float | bool | str] = {"rr_seconds": interval}
        yield Point(measurement="heart_beat", tags=tags, fields=fields, timestamp=rfc3339(start + offset))


def send(patient: Person, recording: Recording, start: int, company: Company) -> None:
    """The patient sends the own heart data."""
    batch = list(points(recording, start, patient.id))
    with Progress(console=company.console) as progress:
        task = progress.add_task(f"{patient.name} sends heart data", total=len(batch))
        for first in range(0, len(batch), BATCH):
            part = WriteRequest(bucket=company.bucket, points=batch[first : first + BATCH])
            result = patient.client.call("POST", "/timeseries/write", part, WriteResult)
            company.chronicle.expect("TIMESERIES_WRITE", patient.client)
            progress.advance(task, result.inserted)


def one_minute_means(company: Company, start: int, seconds: int, *, of: Person | None = None) -> QueryRequest:
    """The question for them: of everybody whom the caller may see, or of one patient."""
    return QueryRequest(
        bucket=company.bucket,
        measurement="heart_rate",
        range_start=rfc3339(start),
        range_stop=rfc3339(start + seconds),
        fields=["bpm"],
        tags={"user_id": str(of.id)} if of else {},
        aggregate="mean",
        window="1m",
    )


def everything(company: Company, measurement: str, start: int, seconds: int) -> QueryRequest:
    """The question for all values, as they were sent, of everybody whom the caller may see."""
    return QueryRequest(
        bucket=company.bucket,
        measurement=measurement,
        range_start=rfc3339(start),
        range_stop=rfc3339(start + seconds),
        limit=MAX_RESULTS,
    )


Value = tuple[str, str, int, FieldValue]
"""Whose it is, the field, the time in nanoseconds since the epoch, and the value."""


def sent(recording: Recording, start: int, user_id: int, measurement: str) -> set[Value]:
    """What :func:`send` has sent of a measurement."""
    return {
        (point.tags["user_id"], field, parse_time(str(point.timestamp)), value)
        for point in points(recording, start, user_id)
        if point.measurement == measurement
        for field, value in point.fields.items()
    }


def received(results: Sequence[Result]) -> set[Value]:
    """The same of an answer."""
    return {(row.tags.get("user_id", ""), row.field, parse_time(row.time), row.value) for row in results}


def show(results: Sequence[Result], names: dict[str, str], console: Console) -> None:
    """1-minute means as a table; ``names`` are the people's, by the ``user_id`` tag."""
    table = Table(title="Heart rate, 1-minute means")
    table.add_column("whose")
    table.add_column("until (UTC)")
    table.add_column("mean", justify="right")
    table.add_column("beats a minute")
    for row in results:
        mean = float(row.value)
        table.add_row(names.get(row.tags["user_id"], "?"), row.time, f"{mean:.1f}", "█" * round(mean / 4))
    console.print(table)


def sparkline(values: list[float], width: int) -> str:
    """The values as ``width`` bars, each the mean of its share."""
    share = max(1, len(values) // width)
    means = [sum(part) / len(part) for part in (values[i : i + share] for i in range(0, len(values), share))]
    low, high = min(means), max(means)
    step = (high - low) / (len(BARS) - 1) or 1.0
    return "".join(BARS[round((mean - low) / step)] for mean in means)


def rfc3339(seconds: float) -> str:
    """Unix seconds as RFC 3339 in UTC, to the microsecond where there is a fraction."""
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{stamp}.{micros:06d}Z" if micros else f"{stamp}Z"
