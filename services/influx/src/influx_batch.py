"""Points on their way into InfluxDB: checked, put into line protocol, and sent."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import NamedTuple

from flask import has_request_context

from heartguard import audit
from heartguard.models.timeseries import FieldValue

from .errors import PartlyWritten
from .influx_answers import stored_text
from .influx_client import InfluxClient
from .influx_http import InfluxError, border
from .influx_refusals import refusal
from .influx_types import KnownTypes, types_of
from .line_protocol import PRECISIONS, field_head, head
from .store import BucketGone, Series, StoredBucket, Types

Value = FieldValue | int
Columns = list[tuple[str, Sequence[Value]]]
"""Fields of points that have them all, each with its values."""


class Lines(NamedTuple):
    """Line protocol, the types of its fields by measurement, and how many values it holds."""

    text: bytes
    precision: str
    types: Types
    values: int


class InfluxBatch:
    """Implements :class:`.store.Batch`.

    InfluxDB writes what it can of a batch, and so what it would not take is looked for first.
    ``forget`` is called where what is remembered of the bucket turns out to be wrong.
    """

    def __init__(
        self, client: InfluxClient, bucket: StoredBucket, types: KnownTypes, forget: Callable[[], None]
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._types = types
        self._forget = forget
        self._blocks: list[tuple[Series, Sequence[int], Columns]] = []

    def add(self, series: Series, field: str, times: Sequence[int], values: Sequence[Value]) -> None:
        if self._blocks:
            last, same_times, columns = self._blocks[-1]
            if times is same_times and series is last:
                columns.append((field, values))
                return
        self._blocks.append((series, times, [(field, values)]))

    @border()
    def write(self) -> None:
        given = types_of(
            (series.measurement, field, values) for series, _, columns in self._blocks for field, values in columns
        )
        values = sum(len(times) * len(columns) for _, times, columns in self._blocks)
        lines = Lines("".join(self._lines()).encode(), "ns", given, values)
        send(self._client, self._bucket, self._types, lines, self._forget)

    def _lines(self) -> Iterator[str]:
        heads: dict[int, str] = {}
        for series, times, columns in self._blocks:
            known = heads.get(id(series))
            if known is None:
                known = heads[id(series)] = head(series.measurement, series.tags)
            yield from _block(known, times, columns)


def _block(beginning: str, times: Sequence[int], columns: Columns) -> Iterable[str]:
    texts = [_column(field_head(field) + "=", values) for field, values in columns]
    fields = texts[0] if len(texts) == 1 else map(",".join, zip(*texts, strict=True))
    return [f"{beginning} {text} {time}\n" for text, time in zip(fields, times, strict=True)]


def _column(beginning: str, values: Sequence[Value]) -> list[str]:
    """A field's values in line protocol; all have one type."""
    kind = type(values[0])
    if kind is float:
        return [f"{beginning}{value!r}" for value in values]
    if kind is bool:
        return [f"{beginning}{'t' if value else 'f'}" for value in values]
    if kind is int:
        return [f"{beginning}{value}i" for value in values]
    return [f"{beginning}{_quoted(value)}" for value in values]  # type: ignore[arg-type]


def _quoted(value: str) -> str:
    return '"' + stored_text(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def tell(action: str | None = None, **payload: object) -> None:
    """Tell the audit trail of what a request has changed."""
    if has_request_context() and (action or audit.stated()):
        audit.emit(action, **payload)  # type: ignore[arg-type]


def send(
    client: InfluxClient, bucket: StoredBucket, known: KnownTypes, lines: Lines, forget: Callable[[], None]
) -> None:
    """Write lines that were found to be good, and tell of it.

    Raises as :meth:`.store.Batch.write` does, and :class:`PartlyWritten` and :class:`Unreadable`.
    """
    try:
        known.check(bucket, lines.types)
    except BucketGone:
        forget()
        raise
    try:
        _write(client, bucket, lines, forget)
    except PartlyWritten as partly:
        known.forget(bucket, lines.types)
        tell(outcome="failure", bucket=bucket.name, values=lines.values, dropped_points=partly.dropped)
        raise
    known.learn(bucket, lines.types)
    tell(bucket=bucket.name, values=lines.values)


def _write(client: InfluxClient, bucket: StoredBucket, lines: Lines, forget: Callable[[], None]) -> None:
    try:
        client.write(bucket.name, lines.text, lines.precision)
    except InfluxError as error:
        if error.is_missing or error.status == HTTPStatus.UNPROCESSABLE_ENTITY:
            forget()
        raise refusal(error, PRECISIONS[lines.precision]) from None
