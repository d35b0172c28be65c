"""What InfluxDB refuses of a write that was found to be good, and whose matter that is."""

from collections.abc import Sequence
from http import HTTPStatus

from heartguard.errors import ServiceError
from heartguard.logs import log

from .errors import PartlyWritten, Unreadable
from .influx_http import InfluxError
from .store import BucketGone

_UNREADABLE = "unable to parse '"


def refusal(error: InfluxError, precision: int) -> Exception:
    """What to raise: the error itself where it is nothing that the batch could have caused."""
    if error.is_missing:
        return BucketGone()
    if error.status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return PartlyWritten(error.message)
    if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        to_do = "raise the limit of bodies, of InfluxDB or of a proxy before it, to 16 MiB"
        log.warning("influx", error="a batch is too large", said=error.message[:200], to_do=to_do)
        return ServiceError(413, "The batch is larger than the store takes: send it in smaller ones")
    if lines := unreadable_lines(error):
        log.error("influx", error="lines that were found to be good cannot be read", reasons=_reasons(lines))
        return Unreadable(lines, precision)
    return error


def unreadable_lines(error: InfluxError) -> list[tuple[str, str]]:
    """The lines that InfluxDB says it cannot read, each with the reason, if there is room for it in the message."""
    if error.code != "invalid" or not error.message.startswith(_UNREADABLE):
        return []
    parts = error.message.removeprefix(_UNREADABLE).split(f"\n{_UNREADABLE}")
    found = [part.rpartition("': ") for part in parts]
    return [(line, reason) if between else (reason, "") for line, between, reason in found]


def _reasons(lines: Sequence[tuple[str, str]]) -> list[str]:
    """A few of them, without the lines, which do not belong into a log."""
    return sorted({reason[:100] for _, reason in lines})[:5]
