"""A client of the gateway, for the command line: typed requests out, typed answers in, JSON or XML."""

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


class GatewayClient:
    """Calls operations through the gateway at ``url``; after :meth:`sign_in` with a token."""

    def __init__(self, url: str, *, seconds: float = 30.0) -> None:
        self._url = url.rstrip("/")
        self._pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=3.0, read=seconds), retries=False)
        self.token: str | None = None

    def send(self, method: str, path: str, body: Request | None, fmt: Format = Format.JSON) -> bytes:
        """The answer's body in that format; an error answer is :class:`Refused`."""
        headers = {"Accept": fmt.value}
        if body is not None:
            headers["Content-Type"] = fmt.value
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            answer = self._pool.request(
                method, self._url + path, body=None if body is None else encode(body, fmt), headers=headers
            )
        except urllib3.exceptions.HTTPError as problem:
            raise Refused(f"no answer from {self._url}: is the stack running? (heartguard status)\n{problem}") from None
        if answer.status >= 400:
            raise Refused(f"{method} {path} → {answer.status}: {_reason(answer.data, fmt)}")
        return answer.data

    def call(self, method: str, path: str, body: Request | None, answer: type[A], fmt: Format = Format.JSON) -> A:
        """The typed answer."""
        return decode(self.send(method, path, body, fmt), fmt, answer)


def _reason(body: bytes, fmt: Format) -> str:
    try:
        error = decode(body, fmt, _JsonError).error if fmt is Format.JSON else decode(body, fmt, Error)
    except ServiceError:
        return "an answer that is not the contract's"
    return f"{error.code} {error.message} (request {error.request_id})"
