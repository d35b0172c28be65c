"""How a request to this service can fail in ways of its own."""

from collections.abc import Sequence

from heartguard.errors import Invalid, ServiceError
from heartguard.models.common import Detail

BUCKET_EXISTS = "TS_001"
FIELD_TYPE = "TS_002"


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


class PartlyWritten(ServiceError):
    """The store took only a part of a batch, although it was looked through before: somebody else was quicker.

    ``said`` is the store's message, ``dropped`` how many points it says it left out, 0 where it does not. To send the
    batch again is safe.
    """

    def __init__(self, said: str) -> None:
        number = said.rpartition("dropped=")[2]
        self.dropped = int(number) if number.isdecimal() else 0
        count = f"{self.dropped} of the points" if self.dropped else "Some of the points"
        is_conflict = "field type conflict" in said
        why = "their field is stored with another type" if is_conflict else "they are older than the bucket's retention"
        message = f"{count} were not stored, because {why}; the others were"
        super().__init__(422, message, code=FIELD_TYPE if is_conflict else None)


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
