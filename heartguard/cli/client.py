"""A client of the gateway, for the command line: typed requests out, typed answers in, JSON or XML."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import urllib3

from ..codec import decode, encode
from ..errors import ServiceError
from ..models.base import Answer, Request
from ..models.common import Error
from ..negotiation import Format

A = TypeVar("A", bound=Answer)


class _JsonError(msgspec.Struct):
    error: Error


class Refused(Exception):
    """The gateway cannot be reached, or did not do what it was asked; the message says why."""


class NoAnswer(Refused):
    """Nothing came back from the address, or not within the time limit."""


@dataclass(frozen=True)
class Exchange:
    """What came back, and after how many ``seconds``."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


class GatewayClient:
    """Calls operations through the gateway at ``url``; after :meth:`sign_in` with a token."""

    def __init__(self, url: str, *, seconds: float = 30.0) -> None:
        self._url = url.rstrip("/")
        self._pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=3.0, read=seconds), retries=False)
        self.token: str | None = None

    @property
    def url(self) -> str:
        return self._url

    def exchange(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], *, most: int | None = None
    ) -> Exchange:
        """Whatever comes back from a path or a whole URL; of the body, no more than ``most`` bytes are read.

        Raises :class:`NoAnswer`.
        """
        url = url if "://" in url else self._url + url
        begun = time.perf_counter()
        try:
            answer = self._pool.request(method, url, body=body, headers=headers, preload_content=most is None)
            content = answer.data if most is None else answer.read(most, decode_content=True)
            if most is not None:
                answer.close()
        except urllib3.exceptions.HTTPError as problem:
            raise NoAnswer(
                f"no answer from {self._url}: is the stack running? (heartguard status)\n{problem}"
            ) from None
        return Exchange(answer.status, answer.headers, content, time.perf_counter() - begun)

    def send(self, method: str, path: str, body: Request | None, fmt: Format = Format.JSON) -> bytes:
        """The answer's body in that format; an error answer is :class:`Refused`."""
        headers = {"Accept": fmt.value}
        if body is not None:
            headers["Content-Type"] = fmt.value
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        answer = self.exchange(method, path, None if body is None else encode(body, fmt), headers)
        if answer.status >= 400:
            raise Refused(f"{method} {path} → {answer.status}: {reason(answer.body, fmt)}")
        return answer.body

    def call(self, method: str, path: str, body: Request | None, answer: type[A], fmt: Format = Format.JSON) -> A:
        """The typed answer."""
        return decode(self.send(method, path, body, fmt), fmt, answer)


def reason(body: bytes, fmt: Format) -> str:
    """What an error answer says."""
    try:
        error = error_of(body, fmt)
    except ServiceError:
        return "an answer that is not the contract's"
    return f"{error.code} {error.message} (request {error.request_id})"


def error_of(body: bytes, fmt: Format) -> Error:
    """Raises :class:`ServiceError` where the body is not of the contract's shape."""
    return decode(body, fmt, _JsonError).error if fmt is Format.JSON else decode(body, fmt, Error)
