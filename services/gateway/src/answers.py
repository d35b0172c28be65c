"""Answers of services: complete ones, long ones that are still coming, and what they look like when they fail."""

from typing import Protocol

import msgspec

from heartguard.models.common import Error

from .rsgi import Headers


class Rest(Protocol):
    """What is still to come of a long answer. :meth:`close` may be called at any time, and lets go of the upstream."""

    async def read(self) -> bytes | None:
        """The next piece, None at the end. An error means that the answer is cut short, and cannot be mended."""

    def close(self) -> None: ...


class Answer:
    """A service's answer: complete in ``body``, or with a ``rest`` that follows it; begun after ``seconds``."""

    __slots__ = ("body", "headers", "rest", "seconds", "status")

    def __init__(self, status: int, headers: Headers, body: bytes, rest: Rest | None) -> None:
        self.seconds = 0.0
        self.status = status
        self.headers = headers
        self.body = body
        self.rest = rest

    @property
    def length(self) -> str | None:
        """The length that the service states; it means nothing for an answer in chunks."""
        found = dict(self.headers)
        return None if "transfer-encoding" in found else found.get("content-length")


class _JsonError(msgspec.Struct):
    error: Error


_read_json_error = msgspec.json.Decoder(_JsonError).decode


def is_error_of_ours(answer: Answer) -> bool:
    """Whether a failure is told in the contract's shape; if not, it is none of our services that speaks."""
    media_type = next((value for name, value in answer.headers if name == "content-type"), "").partition(";")[0]
    if media_type == "application/xml":
        return b"<Error>" in answer.body[:200]
    if media_type != "application/json":
        return False
    if answer.rest is not None:
        return answer.body.startswith(b'{"error":{"code":"')
    try:
        _read_json_error(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
