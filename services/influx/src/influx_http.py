"""InfluxDB's HTTP: pooled connections, one time limit on all waits of a request, and errors told apart."""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import urllib3
from flask import g, has_request_context
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError
from urllib3.response import BaseHTTPResponse

from heartguard.errors import ServiceError, Unavailable
from heartguard.logs import log

from .errors import TooMuch

CONNECTIONS = 16
CONNECT_SECONDS = 2.0
WAIT_SECONDS = 4.0
"""How long a request waits for all that it asks, so that its own answer goes out within five."""
QUERY_SECONDS = 12.0
"""The same where it is a query, over which a server that works may take longer."""
ANSWER_SECONDS = 8.0
"""Of these, how long the server may take to begin an answer, or to go on with it."""
TRUSTED_FOR = 1.0
"""How long after an answer the server is taken for one that works."""
MAX_ERROR = 64 * 1024
CHUNK = 64 * 1024
SHORTEST = 0.01
"""A wait where the time is just over."""
LONGEST_RETRY = 3600
"""Seconds for which a client is asked to wait, whatever InfluxDB says."""
_TRUNCATED = re.compile(rb'\{"code":"[^"\\]*","message":"(?:[^"\\]|\\[^u]|\\u[0-9a-f]{4})*')
"""An error whose message may break off, up to there."""
_RIGHTS = "set INFLUX_TOKEN to one that may read, write, make and delete all buckets of INFLUX_ORG"
_TO_DO = {
    301: "set INFLUX_URL to InfluxDB's own address",
    401: _RIGHTS,
    403: _RIGHTS,
    404: "set INFLUX_ORG to an organization of the InfluxDB 2 at INFLUX_URL",
}
"""What an operator has to mend, by the status that it shows in."""

Json = dict[str, Any]


class InfluxError(Exception):
    """What InfluxDB refused; ``status`` is 200 where it did so in the middle of an answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status = status
        self.code = code
        self.message = message
        super().__init__(f"InfluxDB: {status} {code}: {message}"[:1000])

    @property
    def is_missing(self) -> bool:
        """Whether there is no such bucket, and not something else: the organization, or an InfluxDB at all."""
        if self.status != HTTPStatus.NOT_FOUND or self.code != "not found":
            return False
        return "bucket" in self.message and not self.message.startswith("organization")


@contextmanager
def border() -> Iterator[None]:
    """Beyond it nobody knows InfluxDB's errors: what nobody has made sense of is logged, and 503 for the client."""
    try:
        yield
    except InfluxError as error:
        log.error("influx", error=str(error))
        raise Unavailable from None


def deadline(*, of_query: bool = False) -> float:
    """When the request at work has waited for long enough; outside of one, each question has the time for itself."""
    begun = time.monotonic()
    if has_request_context():
        begun = g.setdefault("influx_asked", begun)
    return begun + (QUERY_SECONDS if of_query else WAIT_SECONDS)


class Connections:
    """The way to one InfluxDB. Thread-safe.

    Raises :class:`Unavailable` where it does not answer or refuses the token, and :class:`InfluxError`
    for what else it refuses.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Token {token}", "Accept-Encoding": "gzip"}
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=CONNECTIONS, block=False)
        self._answered = -TRUSTED_FOR

    def close(self) -> None:
        self._pool.clear()

    @property
    def works(self) -> bool:
        """Whether the server has answered something just now."""
        return time.monotonic() - self._answered < TRUSTED_FOR

    def call(
        self, method: str, path: str, fields: Mapping[str, str], *, end: float | None = None, **options: Any
    ) -> Json:
        """Send, and read the whole answer: JSON, or nothing."""
        end = end or deadline()
        response = self.send(method, path, fields, end, **options)
        try:
            body = b"".join(pieces(response, end))
            found: Json = json.loads(body) if body else {}
        except TooMuch:
            raise Unavailable from None
        except ValueError:
            log.error("influx", path=path, error="the answer is no JSON")
            raise Unavailable from None
        return found

    def send(
        self,
        method: str,
        path: str,
        fields: Mapping[str, str],
        end: float,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        twice: bool = True,
        timed_out: Callable[[], ServiceError] = Unavailable,
    ) -> BaseHTTPResponse:
        """The answer, whose body is still to be read. ``twice`` says that sending it again would do no harm."""
        if time.monotonic() >= end:
            log.warning("influx", path=path, error="what was asked before has taken all the time there was")
            raise timed_out()
        url = f"{self._url}/api/v2{path}"
        if fields:
            url += "?" + urlencode(fields)
        try:
            try:
                response = self._open(method, url, body, headers, end)
            except ProtocolError:  # a pooled connection may have been closed by the server meanwhile
                if not twice:
                    raise
                response = self._open(method, url, body, headers, end)
        except HTTPError as error:
            log.warning("influx", path=path, error=repr(error)[:500])
            if isinstance(error, ReadTimeoutError):
                raise timed_out() from None
            raise Unavailable from None
        self._answered = time.monotonic()
        _wait_until(end, response)
        if response.status >= 300:
            raise _refusal(path, response)
        return response

    def _open(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str] | None, end: float
    ) -> BaseHTTPResponse:
        left = max(end - time.monotonic(), SHORTEST)
        return self._pool.urlopen(
            method,
            url,
            body=body,
            headers={**self._headers, **(headers or {})},
            retries=False,
            timeout=urllib3.Timeout(connect=min(CONNECT_SECONDS, left), read=min(ANSWER_SECONDS, left), total=left),
            redirect=False,
            preload_content=False,
            decode_content=True,
        )


def pieces(response: BaseHTTPResponse, end: float) -> Iterator[bytes]:
    """The body, until its ``end`` has come; the connection is given back when it was read, else closed."""
    try:
        for piece in response.stream(CHUNK, decode_content=True):
            yield piece
            if time.monotonic() > end:
                raise TooMuch
            _wait_until(end, response)
    except ReadTimeoutError:
        raise TooMuch from None
    except HTTPError as error:
        log.warning("influx", error=repr(error)[:500])
        raise Unavailable from None
    finally:
        if not response.closed:
            response.close()
        response.release_conn()


def _wait_until(end: float, response: BaseHTTPResponse) -> None:
    """Have the next wait for a part of the body end in time too, for which the first one's limit holds otherwise."""
    sock = getattr(response.connection, "sock", None)
    if sock is not None:
        sock.settimeout(min(max(end - time.monotonic(), SHORTEST), ANSWER_SECONDS))


def _refusal(path: str, response: BaseHTTPResponse) -> Exception:
    """What the answer, which is an error, says."""
    try:
        body = response.read(MAX_ERROR)
    except HTTPError:
        body = b""
    finally:
        response.close()
    error = InfluxError(response.status, *_said(body))
    status = HTTPStatus.MOVED_PERMANENTLY if error.status < 400 else error.status
    is_operator_s = status in _TO_DO and not error.is_missing
    if is_operator_s or status == HTTPStatus.TOO_MANY_REQUESTS or status >= 500:
        to_do = {"to_do": _TO_DO[status]} if is_operator_s else {}
        log.error("influx", path=path, status=error.status, error=str(error), **to_do)
        return Unavailable(retry_after=_retry_after(response.headers.get("Retry-After", "")))
    return error


def _said(body: bytes) -> tuple[str, str]:
    """The code and the message of an error. Of a body that was too long to be read the message ends somewhere."""
    cut = _TRUNCATED.match(body) if len(body) == MAX_ERROR else None
    try:
        said = json.loads((cut[0] + b'"}' if cut else body).decode(errors="ignore"))
        return str(said["code"]), str(said["message"]).encode(errors="ignore").decode()
    except (ValueError, LookupError, TypeError):
        return "", body[:500].decode(errors="replace")


def _retry_after(said: str) -> int:
    return min(max(int(said), 1), LONGEST_RETRY) if said.isdecimal() and len(said) < 10 else 1
