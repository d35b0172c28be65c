"""A client of the gateway, for the command line: typed requests out, typed answers in, JSON or XML."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import msgspec
import urllib3
from lxml import etree

from ..codec import decode, decode_tree, encode
from ..errors import Malformed, ServiceError
from ..models.base import Answer, Request
from ..models.common import Error
from ..negotiation import Format
from .stopping import Stop

A = TypeVar("A", bound=Answer)
S = TypeVar("S", bound=msgspec.Struct)

PATIENCE = 180.0
"""Seconds that one request may be put off by the gateway's limits."""


class _JsonError(msgspec.Struct):
    error: Error


class Refused(Exception):
    """The gateway cannot be reached (``status`` 0), or did not do what it was asked; the message says why."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class NoAnswer(Refused):
    """Nothing came back from the address, or not within the time limit."""


@dataclass(frozen=True)
class Exchange:
    """What came back, and after how many ``seconds``."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


@dataclass(frozen=True)
class Reply:
    """``etag`` is empty where there is none."""

    body: bytes
    etag: str


class GatewayClient:
    """Calls operations through the gateway at ``url``: as nobody, or by :meth:`signed_in` as somebody.

    Request ids begin with ``prefix``. What the limiter refuses (429) is sent again when ``Retry-After`` says so, and
    so is a ``GET`` that finds something not ready (503); ``waiting`` is told the seconds. No request is sent any more
    once ``stop`` says so, and none is given up that was sent.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "heartguard",
        waiting: Callable[[int], object] = lambda _: None,
        stop: Stop | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.prefix = prefix
        self.stop = stop or Stop()
        self.request_id = ""
        """Of the last request."""
        self._waiting = waiting
        self._numbers = count(1)
        self._pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=3.0, read=30.0), retries=False)
        self.token: str | None = None

    def signed_in(self, token: str) -> "GatewayClient":
        """One that calls with that access token, over the same connections."""
        other = GatewayClient(self.url, prefix=self.prefix, waiting=self._waiting, stop=self.stop)
        other._pool, other._numbers, other.token = self._pool, self._numbers, token
        return other

    def call(self, method: str, path: str, body: Request | None, answer: type[A], fmt: Format = Format.JSON) -> A:
        """The typed answer."""
        return decode_answer(self.send(method, path, body, fmt).body, fmt, answer)

    def send(
        self, method: str, path: str, body: Request | None = None, fmt: Format = Format.JSON, *, if_match: str = ""
    ) -> Reply:
        """The answer in that format; an error answer is :class:`Refused`."""
        self.request_id = f"{self.prefix}-{next(self._numbers)}"
        headers = {"Accept": fmt.value, "X-Request-ID": self.request_id}
        headers |= {"If-Match": if_match} if if_match else {}
        headers |= {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers |= {"Content-Type": fmt.value} if body is not None else {}
        answer = self._admitted(method, path, None if body is None else encode(body, fmt), headers)
        if answer.status >= 400:
            raise Refused(f"{method} {path} → {answer.status}: {reason(answer.body, fmt)}", answer.status)
        return Reply(answer.body, answer.headers.get("ETag", ""))

    def _admitted(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Exchange:
        """The answer, after as much waiting as there is patience for."""
        end = time.monotonic() + PATIENCE
        while True:
            answer = self.exchange(method, path, body, headers)
            seconds = _put_off(method, answer)
            if seconds is None or time.monotonic() + seconds > end:
                return answer
            self._waiting(seconds)
            self.stop.wait(seconds)

    def exchange(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], *, most: int | None = None
    ) -> Exchange:
        """Whatever comes back from a path or a whole URL; of the body, no more than ``most`` bytes are read.

        Raises :class:`NoAnswer`, and :class:`Stopped` before anything is sent.
        """
        self.stop.check()
        url = url if "://" in url else self.url + url
        begun = time.perf_counter()
        try:
            answer = self._pool.request(method, url, body=body, headers=headers, preload_content=most is None)
            content = answer.data if most is None else answer.read(most, decode_content=True)
            if most is not None:
                answer.close()
        except urllib3.exceptions.HTTPError as problem:
            raise NoAnswer(f"no answer from {self.url}: is the stack running? (heartguard status)\n{problem}") from None
        return Exchange(answer.status, answer.headers, content, time.perf_counter() - begun)


def _put_off(method: str, answer: Exchange) -> int | None:
    """Seconds after which to ask again, where that is of use: what was refused with 503 may have been done."""
    if answer.status != 429 and (answer.status != 503 or method != "GET"):
        return None
    seconds = answer.headers.get("Retry-After", "")
    return max(1, int(seconds)) if seconds.isascii() and seconds.isdigit() else None


def decode_answer(body: bytes, fmt: Format, type_: type[S]) -> S:
    """As :func:`heartguard.codec.decode`, but an answer in XML may be longer than a request."""
    if fmt is not Format.XML:
        return decode(body, fmt, type_)
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True)
    try:
        return decode_tree(etree.fromstring(body, parser), type_)
    except etree.XMLSyntaxError as error:
        raise Malformed(f"The body is not XML: {error}") from None


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
