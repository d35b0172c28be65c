"""How a request to this service can fail in ways of its own."""

import re
from collections.abc import Sequence

from heartguard.errors import Invalid, ServiceError
from heartguard.logs import log
from heartguard.models.common import Detail

BUCKET_EXISTS = "TS_001"
FIELD_TYPE = "TS_002"

_DROPPED = re.compile(r" dropped=([0-9]{1,9})(?= for database|$)")
_EXPIRED = re.compile("^(?:dropped [0-9]+ )?points (?:outside|beyond) retention policy")


class BucketExists(ServiceError):
    def __init__(self) -> None:
        super().__init__(409, "The bucket exists", code=BUCKET_EXISTS)


class TooManyBuckets(ServiceError):
    def __init__(self, most: int) -> None:
        super().__init__(409, f"The organization has {most} buckets, which is the most; drop one first")


class WrongFieldType(Invalid):
    """Every point that gives a field another type than the stored one."""

    def __init__(self, details: Sequence[Detail]) -> None:
        super().__init__(details, "The field is stored with another type", code=FIELD_TYPE)


class TooManyQueries(ServiceError):
    """The organization has as many queries at work, and waiting, as it may."""

    def __init__(self) -> None:
        message = "Your organization has too many queries at work: wait for their answers, or ask for less at once"
        super().__init__(429, message, headers={"Retry-After": "1"})


class TooManyDropped(ServiceError):
    """The store has not got round yet to removing the buckets that were dropped before."""

    def __init__(self) -> None:
        super().__init__(
            429, "Too many buckets were dropped just now: try again in a minute", headers={"Retry-After": "60"}
        )


class PartlyWritten(ServiceError):
    """The store took only a part of a batch, although it was looked through before: somebody else was quicker.

    ``said`` is the store's message, ``dropped`` how many points it says it left out, 0 where it does not. These are
    only those of one of its shards, and for one reason: there may be more. To send the batch again is safe. ``why`` is
    the reason, of one point.
    """

    def __init__(self, said: str) -> None:
        numbers = _DROPPED.findall(said)
        self.dropped = int(numbers[-1]) if numbers else 0
        count = f"At least {self.dropped} of the points" if self.dropped else "Some of the points"
        reason = said.partition("partial write: ")[2]
        is_conflict = reason.startswith("field type conflict")
        if is_conflict:
            why, self.why = "their field is stored with another type", "a field is stored with another type"
        elif _EXPIRED.search(reason):
            why, self.why = "they are older than the bucket's retention", "it is older than the bucket's retention"
        else:
            log.error("a store that leaves out points for a reason unknown", error=said[:500])
            why, self.why = "the store refuses them", "the store refuses it"
        message = f"{count} were not stored, because {why}; others may have been"
        super().__init__(422, message, code=FIELD_TYPE if is_conflict else None)


class LeftOut(Invalid):
    """Points that are not stored, whereas the others of their batch are; ``are_conflicts`` where that is all."""

    def __init__(self, message: str, details: Sequence[Detail], *, are_conflicts: bool) -> None:
        super().__init__(details, message, code=FIELD_TYPE if are_conflicts else None)


class Unreadable(Invalid):
    """The store cannot read lines of a batch that was found to be good; it has written nothing.

    ``lines`` are those, each with the store's reason; ``precision`` is the unit of their times in nanoseconds.
    """

    def __init__(self, lines: Sequence[tuple[str, str]], precision: int, details: Sequence[Detail] = ()) -> None:
        self.lines = lines
        self.precision = precision
        super().__init__(details, "The store cannot read some of the points; nothing was written")


class NotNumeric(Invalid):
    """The aggregate needs numbers, and some of the chosen fields hold none."""

    def __init__(self, aggregate: str, fields: Sequence[str]) -> None:
        message = (
            f"{aggregate} needs numbers, which the field {{!r}} does not hold:"
            " name the numeric ones in fields, or use count, first or last"
        )
        super().__init__([Detail(path="/aggregate", message=message.format(field)) for field in fields])


class Overflow(Invalid):
    """The result is beyond what a floating-point number can hold."""

    def __init__(self, aggregate: str) -> None:
        super().__init__([Detail(path="/aggregate", message=f"{aggregate} of these values is too large for a number")])


class TooMuch(Invalid):
    """Answering would take too long."""

    def __init__(self) -> None:
        message = "the range holds more points than can be gone through in time: shorten it, or name tags or fields"
        super().__init__([Detail(path="/range_start", message=message)])


class TooManySeries(Invalid):
    """More series are meant than one answer may be made of."""

    def __init__(self, most: int) -> None:
        super().__init__([Detail(path="/tags", message=f"more than {most} series are meant: name tags or fields")])
