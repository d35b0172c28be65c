"""InfluxDB's HTTP: pooled connections, one time limit on all waits of a request, and errors told apart."""

import json
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
        """Whether there is no such bucket."""
        return self.status == HTTPStatus.NOT_FOUND


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
        for piece in response.stream(CHUNK):
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
    status = response.status
    try:
        body = response.read(MAX_ERROR)
    except HTTPError:
        body = b""
    finally:
        response.close()
    try:
        said = json.loads(body)
        error = InfluxError(status, str(said["code"]), str(said["message"]))
    except (ValueError, LookupError, TypeError):
        error = InfluxError(status, "", body[:500].decode(errors="replace"))
    if status in (401, 403, 429) or status >= 500 or status < 400:
        log.error("influx", path=path, status=status, error=str(error))
        return Unavailable()
    return error
