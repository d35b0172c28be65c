"""InfluxDB 2 over HTTP: pooled connections, a time limit on every wait, and errors told apart.

No client library: the official one's batching acknowledges before it has written, and building its
points costs ten times what sending them does.
"""

import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
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
ALIVE_SECONDS = 1
"""How long it may take over the smallest question, when another was not answered in time."""
QUERY_SECONDS = 12
"""How long an answer to a query may take as a whole."""
MAX_ERROR = 64 * 1024
CHUNK = 64 * 1024
PAGE = 100

_AT_FIRST = urllib3.Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS)


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
_AGAIN = _Retry(total=1, connect=1, read=1, status=0, redirect=0, other=0, allowed_methods=None)
_ONCE = _AGAIN.new(read=0)
_DIALECT = {"annotations": ["datatype", "default"], "header": True, "delimiter": ","}

_JSON = {"Content-Type": "application/json"}

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


class InfluxClient:
    """Speaks to one InfluxDB, in one of its organizations. Thread-safe.

    Raises :class:`Unavailable` where it does not answer or refuses the token, and :class:`InfluxError`
    for what else it refuses.
    """

    def __init__(self, url: str, token: str, org: str) -> None:
        self._url = url.rstrip("/")
        self._org = org
        self._org_id: str | None = None
        self._headers = {"Authorization": f"Token {token}", "Accept-Encoding": "gzip"}
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=CONNECTIONS, block=False, timeout=_AT_FIRST)

    def close(self) -> None:
        self._pool.clear()

    def write(self, bucket_id: str, lines: bytes, precision: str = "ns") -> None:
        """Write line protocol. A partial write is an :class:`InfluxError` with status 422."""
        packer = zlib.compressobj(1, wbits=31)
        packed = packer.compress(lines) + packer.flush()
        self._call(
            "POST",
            "/write",
            {"bucket": bucket_id, "precision": precision, "org": self._org},
            body=packed,
            headers={"Content-Type": "text/plain; charset=utf-8", "Content-Encoding": "gzip"},
            retries=_AGAIN,
        )

    def query(self, flux: str, extern: Json) -> Iterator[str]:
        """The lines of the answer: annotated CSV. Once begun it has to be read to its end, or closed."""
        asked = {"query": flux, "extern": extern, "type": "flux", "dialect": _DIALECT}
        response = self._send(
            "POST",
            "/query",
            {"org": self._org},
            body=json.dumps(asked).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/csv"},
            retries=_AGAIN,
            timed_out=self._too_much,
        )
        return _lines(response)

    def buckets(self, **asked: str) -> Iterator[Json]:
        """All buckets, or only that of a ``name``."""
        after: dict[str, str] = {}
        while True:
            found = self._call("GET", "/buckets", {"org": self._org, "limit": str(PAGE), **asked, **after})["buckets"]
            yield from found
            if len(found) < PAGE:
                return
            after = {"after": found[-1]["id"]}

    def create_bucket(self, name: str, retention_seconds: int, description: str | None) -> Json | None:
        """Make a bucket; None where the name is taken."""
        rules = [{"type": "expire", "everySeconds": retention_seconds}] if retention_seconds else []
        new = {"orgID": self._organization_id(), "name": name, "retentionRules": rules}
        if description is not None:
            new["description"] = description
        try:
            return self._call("POST", "/buckets", {}, body=json.dumps(new).encode(), headers=_JSON, retries=_ONCE)
        except InfluxError as error:
            if error.code == "conflict":
                return None
            raise

    def drop_bucket(self, bucket_id: str) -> bool:
        """Drop a bucket with all its points; whether there was one."""
        try:
            self._call("DELETE", f"/buckets/{bucket_id}", {}, retries=_AGAIN)
        except InfluxError as error:
            if error.is_missing:
                return False
            raise
        return True

    def check(self) -> None:
        """Ask something that needs the token, the organization and the server's store; raises where that fails."""
        self._call("GET", "/buckets", {"org": self._org, "limit": "1"})

    def _too_much(self) -> ServiceError:
        """Why a question had no answer in time: it was too large, or InfluxDB answers nothing at all."""
        url = f"{self._url}/api/v2/buckets?{urlencode({'org': self._org, 'limit': '1'})}"
        try:
            answer = self._pool.request("GET", url, headers=self._headers, timeout=ALIVE_SECONDS, retries=False)
        except HTTPError:
            return Unavailable()
        return TooMuch() if answer.status == HTTPStatus.OK else Unavailable()

    def _organization_id(self) -> str:
        if self._org_id is None:
            try:
                found = self._call("GET", "/orgs", {"org": self._org})["orgs"]
            except InfluxError as error:
                log.error("influx", error=str(error))
                raise Unavailable from None
            if not found:
                raise Unavailable
            self._org_id = str(found[0]["id"])
        return self._org_id

    def _call(self, method: str, path: str, fields: Mapping[str, str], **options: Any) -> Json:
        """Send, and read the whole answer: JSON, or nothing."""
        response = self._send(method, path, fields, **options)
        try:
            body = b"".join(_pieces(response))
            found: Json = json.loads(body) if body else {}
        except TooMuch:
            raise Unavailable from None
        except ValueError:
            log.error("influx", path=path, error="the answer is no JSON")
            raise Unavailable from None
        return found

    def _send(
        self,
        method: str,
        path: str,
        fields: Mapping[str, str],
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        retries: urllib3.Retry = _AGAIN,
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


def _pieces(response: BaseHTTPResponse) -> Iterator[bytes]:
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


def _lines(response: BaseHTTPResponse) -> Iterator[str]:
    """The body's lines with their ends, so that line breaks within quotes stay what they are."""
    rest = b""
    for piece in _pieces(response):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode() + "\n"
    if rest:
        yield rest.decode()


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
