"""InfluxDB's HTTP: pooled connections, a time limit on every wait, and errors told apart."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.response import BaseHTTPResponse

from heartguard.errors import ServiceError, Unavailable
from heartguard.logs import log

from .errors import TooMuch

CONNECTIONS = 16
CONNECT_SECONDS = 2
ANSWER_SECONDS = 8
"""How long the server may take over a step: to begin its answer, or to go on with it."""
QUERY_SECONDS = 12
"""How long an answer to a query may take as a whole."""
MAX_ERROR = 64 * 1024
CHUNK = 64 * 1024

AT_FIRST = urllib3.Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS)


class _Retry(urllib3.Retry):
    """Never tries again what timed out: the server has enough to do."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        *context: Any,
        **more: Any,
    ) -> "_Retry":
        if isinstance(error, ReadTimeoutError):
            raise error
        return super().increment(method, url, response, error, *context, **more)


# What can be done twice with the same effect may be sent again, once, where the connection broke: a pooled one may have
# been closed by the server meanwhile.
AGAIN = _Retry(total=1, connect=1, read=1, status=0, redirect=0, other=0, allowed_methods=None)
ONCE = AGAIN.new(read=0)

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


class Connections:
    """The way to one InfluxDB. Thread-safe.

    Raises :class:`Unavailable` where it does not answer or refuses the token, and :class:`InfluxError`
    for what else it refuses.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Token {token}", "Accept-Encoding": "gzip"}
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=CONNECTIONS, block=False)

    def close(self) -> None:
        self._pool.clear()

    def call(self, method: str, path: str, fields: Mapping[str, str], **options: Any) -> Json:
        """Send, and read the whole answer: JSON, or nothing."""
        response = self.send(method, path, fields, **options)
        try:
            body = b"".join(pieces(response))
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
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        retries: urllib3.Retry = AGAIN,
        timeout: urllib3.Timeout | None = None,
        timed_out: Callable[[], ServiceError] = Unavailable,
    ) -> BaseHTTPResponse:
        url = f"{self._url}/api/v2{path}"
        if fields:
            url += "?" + urlencode(fields)
        try:
            response = self._pool.urlopen(
                method,
                url,
                body=body,
                headers={**self._headers, **(headers or {})},
                retries=retries,
                timeout=timeout or AT_FIRST,
                redirect=False,
                preload_content=False,
                decode_content=True,
            )
        except HTTPError as error:
            cause = getattr(error, "reason", None) or error
            log.warning("influx", path=path, error=repr(cause)[:500])
            if isinstance(cause, ReadTimeoutError):
                raise timed_out() from None
            raise Unavailable from None
        if response.status >= 300:
            raise _refusal(path, response)
        return response


def pieces(response: BaseHTTPResponse) -> Iterator[bytes]:
    """The body, for at most so long as a whole; the connection is given back at its end, else closed."""
    end = time.monotonic() + QUERY_SECONDS
    try:
        for piece in response.stream(CHUNK):
            yield piece
            if time.monotonic() > end:
                raise TooMuch
    except ReadTimeoutError:
        raise TooMuch from None
    except HTTPError as error:
        log.warning("influx", error=repr(error)[:500])
        raise Unavailable from None
    finally:
        if not response.closed:
            response.close()
        response.release_conn()


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
