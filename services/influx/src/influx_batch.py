"""Points on their way into InfluxDB: checked, put into line protocol, and sent."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus

from flask import has_request_context

from heartguard import audit
from heartguard.errors import ServiceError
from heartguard.models.timeseries import FieldValue

from .errors import PartlyWritten
from .influx_answers import stored_text
from .influx_client import InfluxClient
from .influx_http import InfluxError
from .influx_types import KnownTypes, types_of
from .line_protocol import field_head, head
from .store import BucketGone, Series, StoredBucket

Value = FieldValue | int
Columns = list[tuple[str, Sequence[Value]]]
"""Fields of points that have them all, each with its values."""


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

    def write(self) -> None:
        given = types_of(
            (series.measurement, field, values) for series, _, columns in self._blocks for field, values in columns
        )
        self._types.check(self._bucket, given)
        send(self._client, self._bucket, "".join(self._lines()).encode(), "ns", self._forget)
        self._types.learn(self._bucket, given)
        values = sum(len(times) * len(columns) for _, times, columns in self._blocks)
        tell(bucket=self._bucket.name, values=values)

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


def send(client: InfluxClient, bucket: StoredBucket, lines: bytes, precision: str, forget: Callable[[], None]) -> None:
    """Write lines that were found to be good. Raises :class:`BucketGone`, or what says how much is not stored."""
    try:
        client.write(bucket.id, lines, precision)
    except InfluxError as error:
        if error.is_missing:
            forget()
            raise BucketGone from None
        if error.status == HTTPStatus.UNPROCESSABLE_ENTITY:
            forget()
            raise PartlyWritten(error.message) from None
        if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise ServiceError(413) from None
        raise
