"""What every type of the contract is built from.

The constraints here are the single source: msgspec enforces them on the way in, and the
published JSON Schema and XSD are generated from them. Patterns therefore use only what
Python, ECMA and XSD regular expressions read alike: plain groups, explicit classes, no
look-around.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

__all__ = [
    "UNSET",
    "Answer",
    "Email",
    "Query",
    "Request",
    "RequestPart",
    "Role",
    "ShownName",
    "Text",
    "Timestamp",
    "UnsetType",
    "Update",
    "full",
    "given",
]


def full(pattern: str, **constraints: Any) -> Meta:
    r"""A constraint on the whole string. (``$`` would let a trailing newline pass, ``\Z`` does not.)"""
    return Meta(pattern=rf"\A({pattern})\Z", **constraints)


class Request(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A request body: unknown properties are violations."""


class Update(Request):
    """A request to change what is given and leave the rest; nothing at all is a violation."""

    def __post_init__(self) -> None:
        if all(getattr(self, name) is UNSET for name in self.__struct_fields__):
            raise ValueError("must not be empty")


def given(update: Update) -> str:
    """The names of what it changes, for the audit trail, which is not told the values."""
    return ", ".join(name for name in update.__struct_fields__ if getattr(update, name) is not UNSET)


class Query(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A query string: unknown parameters are violations."""


class RequestPart(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A part of a request's body, to be decoded only as such: the whole judges some of its rules."""


class Answer(msgspec.Struct, kw_only=True):
    """An answer body, or a part of one: absent properties are left out."""


XML_CHARACTERS = "[\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
"""What XML 1.0 can carry. A string outside it could be sent in JSON but never read in XML."""

Text = Annotated[str, Meta(extra_json_schema={"pattern": rf"\A({XML_CHARACTERS}*)\Z"})]
"""Any string that both formats can carry.

Only the published schema states the pattern: the decoder sends the rare body that could break it
(one with ``\\u``, ``\\b`` or ``\\f`` escapes) to the schema's own validator, which spares all others
one regular expression a string.
"""

Email = Annotated[
    str,
    full(
        r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~\-]{1,64}@"
        r"[A-Za-z0-9]([A-Za-z0-9\-]{0,61}[A-Za-z0-9])?"
        r"(\.[A-Za-z0-9]([A-Za-z0-9\-]{0,61}[A-Za-z0-9])?)+",
        max_length=254,
        description="An e-mail address",
    ),
]
"""The WHATWG's definition of a valid e-mail address (HTML, section 4.10.5.1.5), with a dot in the domain."""

_PRINTED = "[\u0021-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"

ShownName = Annotated[
    str,
    full(f"{XML_CHARACTERS}*{_PRINTED}{XML_CHARACTERS}*", max_length=100, description="A name that is not blank"),
]

_YEAR = "(16(7[89]|[89][0-9])|1[7-9][0-9][0-9]|2[01][0-9][0-9]|22([0-5][0-9]|6[01]))"
_LEAP = (
    "(16(8[048]|9[26])|1[789](0[48]|[2468][048]|[13579][26])"
    "|20([02468][048]|[13579][26])|21(0[48]|[2468][048]|[13579][26])|22(0[48]|[24][048]|[135][26]|60))"
)
DATE = (
    f"({_YEAR}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    f"|02-(0[1-9]|1[0-9]|2[0-8]))|{_LEAP}-02-29)"
)
HOUR_AND_MINUTE = "([01][0-9]|2[0-3]):[0-5][0-9]"
SECONDS = ":[0-5][0-9]"
FRACTION = r"(\.[0-9]{1,9})?"
ZONE = r"(Z|[+\-]00:00)"
TIMESTAMP = f"{DATE}T{HOUR_AND_MINUTE}{SECONDS}{FRACTION}{ZONE}"
"""RFC 3339 in UTC, to the nanosecond, in the years that 64 bits of nanoseconds hold whole (1678 to 2261)."""

Timestamp = Annotated[
    str,
    Meta(
        description="A time in UTC by RFC 3339, to the nanosecond, from 1678 to 2261",
        extra_json_schema={"pattern": rf"\A({TIMESTAMP})\Z"},
    ),
]
"""A point's time. Only the published schema states the pattern: the request reads it in ``__post_init__``
with :func:`heartguard.timestamps.parse_times`, which judges it on the way, several times faster."""

Role = Literal["admin", "manager", "user"]
