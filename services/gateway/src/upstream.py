"""The services behind the gateway: one pooled HTTP client, and what can go wrong with it.

pyreqwest runs every request of a client on one thread of its own, and a request body given as an
iterator is read there too: it must never wait for anything. The bodies here are bytes or files.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.exceptions import NetworkError, RequestError, RequestTimeoutError
from pyreqwest.request import SyncRequestBuilder, SyncStreamRequest
from pyreqwest.response import SyncResponse

from heartguard.errors import Malformed, ServiceError, Unavailable
from heartguard.logs import log
from heartguard.services import SERVICES

from . import instruments
from .answers import Answer
from .bodies import Body
from .breaker import Breaker

CONNECT_TIMEOUT = 1.0
POOL_IDLE_TIMEOUT = 30.0
POOL_SIZE = 64
WHOLE = 64 * 1024
"""Answers up to this many bytes are passed on in one piece, with a length; longer ones as they come."""

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})


def make_client(timeout: float) -> SyncClient:
    """A client that passes on what it gets, untouched: no redirects, cookies, unpacking or proxies of its own."""
    return (
        SyncClientBuilder()
        .connect_timeout(timedelta(seconds=CONNECT_TIMEOUT))
        .read_timeout(timedelta(seconds=timeout))
        .pool_idle_timeout(timedelta(seconds=POOL_IDLE_TIMEOUT))
        .pool_max_idle_per_host(POOL_SIZE)
        .follow_redirects(enable=False)
        .referer(enable=False)
        .no_proxy()
        .gzip(enable=False)
        .brotli(enable=False)
        .zstd(enable=False)
        .deflate(enable=False)
        .build()
    )


class Upstream:
    """One service. Thread-safe."""

    def __init__(self, name: str, base_url: str, client: SyncClient, breaker: Breaker | None = None) -> None:
        self.name = name
        self.base_url = base_url
        self._client = client
        self._breaker = breaker or Breaker(name)
        self._timer = instruments.UPSTREAM.labels(name)
        self._failures = instruments.UPSTREAM_FAILURES.labels(name)

    def send(self, method: str, target: str, headers: Sequence[tuple[str, str]], body: Body) -> Answer:
        """Ask the service. ``target`` is the path, encoded, with the query string.

        Raises 502 (no connection, or nonsense), 503 (open circuit) or 504 (no answer in time); 400 where the
        client library refuses the request. An idempotent request is sent once more where the connection
        failed, not where time ran out.
        """
        request = self._request(method, target, headers, body)
        self._breaker.enter()
        begun = time.perf_counter()
        try:
            try:
                answer = self._attempt(method, request)
            except NetworkError:
                if method not in IDEMPOTENT:
                    raise
                answer = self._attempt(method, self._request(method, target, headers, body))
        except BaseException as error:
            raise self._failure(error) from error
        self._breaker.succeeded()
        answer.seconds = time.perf_counter() - begun
        self._timer.observe(answer.seconds)
        return answer

    def check(self, timeout: float) -> None:
        """Raise unless the service says within ``timeout`` seconds that it lives."""
        url = f"{self.base_url}{SERVICES[self.name].path}/health"
        request = self._client.get(url).timeout(timedelta(seconds=timeout)).build()
        if (status := request.send().status) != 200:
            raise Unavailable(f"{self.name} answered {status}")

    def _request(self, method: str, target: str, headers: Sequence[tuple[str, str]], body: Body) -> SyncStreamRequest:
        try:
            builder = self._client.request(method, self.base_url + target).headers(headers)
            return _with_body(builder, body).build_streamed()
        except ValueError as error:
            raise Malformed("The request cannot be passed on") from error

    def _attempt(self, method: str, request: SyncStreamRequest) -> Answer:
        response = request.__enter__()
        try:
            if not 200 <= response.status <= 599:
                raise ValueError(f"status {response.status}")
            return self._receive(method, request, response)
        except BaseException:
            request.__exit__(None, None, None)
            raise

    def _receive(self, method: str, request: SyncStreamRequest, response: SyncResponse) -> Answer:
        headers = list(response.headers.items())
        if method == "HEAD" or _fits(response):
            body = response.body_reader.bytes().to_bytes()
            request.__exit__(None, None, None)
            return Answer(response.status, headers, body, None)
        reader = response.body_reader
        begun = bytearray()
        while len(begun) <= WHOLE:
            chunk = reader.read_chunk()
            if chunk is None:
                request.__exit__(None, None, None)
                return Answer(response.status, headers, bytes(begun), None)
            begun += chunk
        return Answer(response.status, headers, bytes(begun), _Rest(self, request, response))

    def _failure(self, error: BaseException) -> BaseException:
        """What the client hears of ``error``."""
        self._breaker.failed()
        self._failures.inc()
        if not isinstance(error, RequestError | ValueError):
            return error
        log.warning("upstream", upstream=self.name, error=_causes(error))
        return ServiceError(504 if isinstance(error, RequestTimeoutError) else 502)

    def broke_off(self, error: Exception) -> None:
        """Note that an answer ended before its end."""
        self._failure(error)


class _Rest:
    """The pieces of an answer after the first."""

    def __init__(self, upstream: Upstream, request: SyncStreamRequest, response: SyncResponse) -> None:
        self._upstream = upstream
        self._request: SyncStreamRequest | None = request
        self._reader = response.body_reader

    def read(self) -> bytes | None:
        """The next piece, None at the end. An error means that the answer is cut short, and cannot be mended."""
        try:
            chunk = self._reader.read_chunk()
        except RequestError as error:
            self._upstream.broke_off(error)
            self.close()
            raise
        return None if chunk is None else chunk.to_bytes()

    def close(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            with suppress(RequestError):
                request.__exit__(None, None, None)


def _fits(response: SyncResponse) -> bool:
    length = response.get_header("content-length")
    return length is not None and length.isdecimal() and int(length) <= WHOLE


def _with_body(builder: SyncRequestBuilder, body: Body) -> SyncRequestBuilder:
    if body.file is not None:
        return builder.header("content-length", str(body.length)).body_stream(body.chunks())
    return builder if body.content is None else builder.body_bytes(body.content)


def _causes(error: Exception) -> str:
    details = getattr(error, "details", None) or {}
    causes = [cause["message"] for cause in details.get("causes") or []]
    return f"{type(error).__name__}: {'; '.join(causes) or error}"
