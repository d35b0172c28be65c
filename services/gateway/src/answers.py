"""Answers of services: complete ones, long ones that are still coming, and what they look like when they fail."""

from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from heartguard.models.common import Error

Headers = list[tuple[str, str]]


class Rest(Protocol):
    """What is still to come of a long answer. :meth:`close` may be called at any time, and lets go of the upstream."""

    def read(self) -> bytes | None: ...

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


class Stream:
    """A long answer on its way; the web server closes it, at its end or when the client has gone."""

    def __init__(self, begun: bytes, rest: Rest, done: Callable[[], None]) -> None:
        self._begun = begun
        self._rest = rest
        self._done: Callable[[], None] | None = done

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._begun:
            begun, self._begun = self._begun, b""
            return begun
        chunk = self._rest.read()
        if chunk is None:
            raise StopIteration
        return chunk

    def close(self) -> None:
        self._rest.close()
        done, self._done = self._done, None
        if done is not None:
            done()


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
