"""Answers of services: short ones, long ones, and what they look like when they fail."""

import re
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from heartguard.models.common import Error, Ready

from .headers import Headers

if TYPE_CHECKING:
    from .stored import Stored


class Rest(Protocol):
    """What is still to come of a long answer."""

    async def read(self) -> bytes | None:
        """The next piece, None at the end. An error means that the answer is cut short, and cannot be mended."""


class Answer:
    """A service's answer, begun after ``seconds``: complete in ``body``, or else ``stored`` once the ``rest`` has come.

    Of a long one ``body`` is the beginning.
    """

    __slots__ = ("body", "headers", "rest", "seconds", "status", "stored")

    def __init__(self, status: int, headers: Headers, body: bytes, rest: Rest | None) -> None:
        self.seconds = 0.0
        self.status = status
        self.headers = headers
        self.body = body
        self.rest = rest
        self.stored: Stored | None = None

    @property
    def length(self) -> int | None:
        """The length that the service states; it means nothing for an answer in chunks."""
        found = dict(self.headers)
        length = found.get("content-length")
        return None if length is None or "transfer-encoding" in found else int(length)


class _JsonError(msgspec.Struct):
    error: Error


_JSON_FAILURES: list[msgspec.json.Decoder[Any]] = [msgspec.json.Decoder(_JsonError), msgspec.json.Decoder(Ready)]
_XML_FAILURES = (b"<Error>", b"<Ready>")
_BEGINS_AS_FAILURE = re.compile(
    rb'\{(?:"code":"[a-z ]+","message":"[^"\\]*+(?:\\.[^"\\]*+)*","error":\{|"error":\{)"code":"'
)
"""A long one, which may have InfluxDB's code and message before ours."""


def is_failure_of_ours(answer: Answer) -> bool:
    """Whether a failure is told in the contract's shape; if not, it is none of our services that speaks.

    That shape is an error, or the report of a service that is not ready.
    """
    media_type = next((value for name, value in answer.headers if name == "content-type"), "").partition(";")[0]
    if media_type == "application/xml":
        return any(root in answer.body[:200] for root in _XML_FAILURES)
    if media_type != "application/json":
        return False
    if answer.stored is not None:
        return _BEGINS_AS_FAILURE.match(answer.body) is not None
    return any(_reads(decoder, answer.body) for decoder in _JSON_FAILURES)


def _reads(decoder: msgspec.json.Decoder[Any], body: bytes) -> bool:
    try:
        decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
