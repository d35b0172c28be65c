"""InfluxDB's HTTP: pooled connections, one deadline for all waits of a request, and errors told apart.

A server that says nothing for half a second is asked, on another connection, whether it answers at all: so a request
that takes its time gets it, and one to a server that hangs ends within seconds.
"""

import io
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlencode

import urllib3
from flask import g, has_request_context
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProtocolError, ReadTimeoutError
from urllib3.response import BaseHTTPResponse
from urllib3.util.wait import wait_for_read

from heartguard.errors import ServiceError, Unavailable
from heartguard.logs import log

from .errors import TooMuch

CONNECTIONS = 16
CONNECT_SECONDS = 1.5
"""The same for sending each piece of a body."""
REQUEST_SECONDS = 8.0
"""How long a request to this service waits for all that it asks of InfluxDB."""
SILENCE_SECONDS = 0.5
"""After which a server that says nothing is asked whether it answers at all."""
ALIVE_SECONDS = 2.5
"""How long it may take over that answer."""
TRUSTED_FOR = 0.5
"""How long after an answer the server is taken for one that works."""
RETRY_AFTER = 1.0
"""How long a server that was found silent is not asked again."""
MAX_ERROR = 64 * 1024
CHUNK = 64 * 1024
MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of one answer, unpacked."""
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

    @property
    def is_out_of_memory(self) -> bool:
        """Whether a query needed more memory than InfluxDB gives one (query-memory-bytes)."""
        return "memory allocation limit reached" in self.message

    @property
    def is_of_types(self) -> bool:
        """Whether values are not of a type that the aggregate is for; of least and greatest ones it is a 500."""
        if "has no implementation for type" in self.message:
            return True
        return "unsupported" in self.message and "aggregate" in self.message

    @property
    def is_internal(self) -> bool:
        """Whether it failed for reasons that it keeps to itself."""
        return self.status == HTTPStatus.INTERNAL_SERVER_ERROR and self.code == "internal error"

    @property
    def is_queue_full(self) -> bool:
        """Whether more queries wait than InfluxDB lets wait (query-queue-size)."""
        return "queue length exceeded" in self.message


@contextmanager
def border() -> Iterator[None]:
    """Beyond it nobody knows InfluxDB's errors: what nobody has made sense of is logged, and 503 for the client."""
    try:
        yield
    except InfluxError as error:
        log.error("influx", error=str(error))
        raise Unavailable from None


def deadline() -> float:
    """When the request at work has waited for long enough; outside of one, each question has the time for itself."""
    begun = time.monotonic()
    if has_request_context():
        begun = g.setdefault("influx_asked", begun)
    return begun + REQUEST_SECONDS


class _Wait(threading.local):
    """How this thread waits for an answer: until ``end``, with ``look`` called in between where nothing comes."""

    end = 0.0
    look: Callable[[], None] | None = None


_wait = _Wait()


class _PatientReader(io.RawIOBase):
    """Reads from a socket as :data:`_wait` says. Raises TimeoutError at the end, and whatever ``look`` raises."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        while not self._is_readable():
            if _wait.look:
                _wait.look()
        self._sock.settimeout(max(_wait.end - time.monotonic(), SHORTEST))  # a part of a TLS record may have come
        found: int | None = self._raw.readinto(buffer)
        return found

    def _is_readable(self) -> bool:
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return True
        left = _wait.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for all waits is over")
        return wait_for_read(self._sock, min(left, SILENCE_SECONDS))

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_PatientReader(sock), CHUNK)


class _Connection(HTTPConnection):
    response_class = _Response


class _SecureConnection(HTTPSConnection):
    response_class = _Response


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class Connections:
    """The way to one InfluxDB. Thread-safe.

    Raises :class:`Unavailable` where it does not answer or refuses the token, and :class:`InfluxError`
    for what else it refuses.
    """

    def __init__(self, url: str, token: str, org: str) -> None:
        self._url = url.rstrip("/")
        self._org = org
        self._headers = {"Authorization": f"Token {token}", "Accept-Encoding": "identity"}
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=CONNECTIONS, block=False, blocksize=CHUNK)
        self._pool.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        self._answered = -TRUSTED_FOR
        self._date = ""
        self._looking = threading.Lock()
        self._silent = False
        self._look_again = 0.0

    @property
    def server_time(self) -> datetime:
        """The server's clock, to the second, as of its last answer."""
        return parsedate_to_datetime(self._date) if self._date else datetime.now(UTC)

    def close(self) -> None:
        self._pool.clear()

    def call(self, method: str, path: str, fields: Mapping[str, str], **options: Any) -> Json:
        """Send, and read the whole answer: JSON, or nothing."""
        response = self.send(method, path, fields, deadline(), **options)
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
        end: float,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        twice: bool = True,
        timed_out: Callable[[], ServiceError] = Unavailable,
    ) -> BaseHTTPResponse:
        """The answer, whose body this thread reads next. ``twice`` says that sending it again would do no harm.

        ``timed_out`` makes what is raised where the server works and the answer does not come in time.
        """
        if time.monotonic() >= end:
            log.warning("influx", path=path, error="what was asked before has taken all the time there was")
            raise timed_out()
        url = self._url + path
        if fields:
            url += "?" + urlencode(fields)
        self._enter()
        _wait.end, _wait.look = end, self._look
        try:
            try:
                response = self._open(method, url, body, headers)
            except ProtocolError:  # a pooled connection may have been closed by the server meanwhile
                if not twice:
                    raise
                response = self._open(method, url, body, headers)
        except HTTPError as error:
            log.warning("influx", path=path, error=repr(error)[:500])
            if _is_silence(error):
                self._note_silence()
            if isinstance(error, ReadTimeoutError) and time.monotonic() >= end:
                raise timed_out() from None
            raise Unavailable from None
        self._note_answer()
        self._date = response.headers.get("Date", "")
        if response.status >= 300:
            raise _refusal(path, response)
        return response

    def _open(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str] | None) -> BaseHTTPResponse:
        left = max(_wait.end - time.monotonic(), SHORTEST)
        given = {**self._headers, **(headers or {})}
        if body is not None:
            given["Content-Length"] = str(len(body))
        return self._pool.urlopen(
            method,
            url,
            body=None if body is None else io.BytesIO(body),  # sent in pieces, each of which may take its time
            headers=given,
            retries=False,
            timeout=urllib3.Timeout(connect=min(CONNECT_SECONDS, left), read=left),
            redirect=False,
            preload_content=False,
        )

    def _enter(self) -> None:
        """Where the server was found silent one caller at a time looks whether it still is; others hear so at once.

        Else they would find out one after another, until no thread is left for anything else.
        """
        if self._silent:
            if time.monotonic() < self._look_again or not self._looking.acquire(blocking=False):
                raise Unavailable
            try:
                self._ask_whether_alive()
            finally:
                self._looking.release()

    def _look(self) -> None:
        """See whether the server answers at all, if that is not known; raises :class:`Unavailable` where not.

        Those who want to know at the same time share one look.
        """
        with self._looking:
            if self._silent:
                raise Unavailable
            if time.monotonic() - self._answered >= TRUSTED_FOR:
                self._ask_whether_alive()

    def _ask_whether_alive(self) -> None:
        before = _wait.end, _wait.look
        _wait.end, _wait.look = time.monotonic() + ALIVE_SECONDS, None
        try:
            url = f"{self._url}/api/v2/buckets?{urlencode({'org': self._org, 'limit': '1'})}"
            response = self._open("GET", url, None, None)
            for _ in response.stream(CHUNK, decode_content=True):
                pass
        except HTTPError as error:
            log.error("influx", error=f"the server does not answer: {error!r}"[:500])
            if _is_silence(error) or isinstance(error, ReadTimeoutError):
                self._note_silence()
            raise Unavailable from None
        finally:
            _wait.end, _wait.look = before
        self._note_answer()

    def _note_silence(self) -> None:
        self._silent, self._look_again = True, time.monotonic() + RETRY_AFTER

    def _note_answer(self) -> None:
        self._silent, self._answered = False, time.monotonic()


def _is_silence(error: HTTPError) -> bool:
    """Whether nobody answered, which is not so where a connection was refused."""
    return isinstance(error, ConnectTimeoutError) and not isinstance(error, NewConnectionError)


def pieces(response: BaseHTTPResponse) -> Iterator[bytes]:
    """The body, unpacked. The connection is given back when it was read, else closed: that ends a query there.

    Raises :class:`TooMuch` where the time is over, or the answer is too long.
    """
    left = MAX_ANSWER
    try:
        for piece in response.stream(CHUNK, decode_content=True):
            yield piece
            left -= len(piece)
            if left < 0 or time.monotonic() > _wait.end:
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
    try:
        body = response.read(MAX_ERROR, decode_content=True)
    except HTTPError:
        body = b""
    finally:
        response.close()
    error = InfluxError(response.status, *_said(body))
    status = HTTPStatus.MOVED_PERMANENTLY if error.status < 400 else error.status
    is_operator_s = status in _TO_DO and not error.is_missing
    is_overloaded = status == HTTPStatus.TOO_MANY_REQUESTS or error.is_queue_full
    if is_operator_s or is_overloaded or (status >= 500 and not error.is_of_types and not error.is_internal):
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
