"""Valkey/Redis with time limits: redis-py for ordinary use, a bare connection for the hot path."""

import hashlib
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import hiredis
from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import SSLConnection, parse_url
from redis.exceptions import RedisError
from redis.retry import Retry

from .errors import Unavailable
from .logs import log

CONNECT_TIMEOUT = 0.5
TIMEOUT = 0.5
"""Seconds that any answer may take."""
RETRY_AFTER = 1.0
"""Seconds to leave a Valkey alone that did not answer; then one call tries it, while the others still fail at once."""

REVOKED_TOKEN = "revoked:jti:"
REVOKED_SESSION = "revoked:sid:"
REVOCATIONS_COMPLETE = "revocations:complete"
"""Holds the ``run_id`` (``INFO server``) of the Valkey process that was told every revocation.

Absent, or another process's: this one may lack some (it restarted, empty or with an older copy of its
data), so ask the auth service instead.
"""

Argument = str | int | bytes
T = TypeVar("T")

_RUN_ID = re.compile(rb"run_id:(\w+)")
_pack: Callable[[tuple[Argument, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]


def connect(url: str) -> Redis:
    """A client whose every wait is short; it retries once, at once, where a pooled connection has gone stale."""
    return Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_TIMEOUT,
        socket_timeout=TIMEOUT,
        max_connections=16,
        retry=Retry(NoBackoff(), 1),
    )


def check(client: Redis) -> None:
    """Ping; raises :class:`Unavailable` where there is no answer."""
    try:
        client.ping()
    except RedisError as error:
        raise Unavailable from error


class Script:
    """A Lua script, which Valkey knows by its hash once it has seen it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class FastValkey:
    """Runs scripts over plain sockets, at a third of redis-py's cost.

    Thread-safe. Connections are pooled, at most one per thread that is calling. Once Valkey has
    failed to answer, calls fail at once, and every :data:`RETRY_AFTER` seconds one of them tries
    again: no call ever waits longer than the short time limits above.
    """

    def __init__(self, url: str) -> None:
        self._where: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()
        self._away = False
        self._try_at = 0.0

    @property
    def away(self) -> bool:
        return self._away

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> tuple[Any, bytes]:
        """The script's answer, and the ``run_id`` of the Valkey process that gave it.

        Raises :class:`Unavailable` where there is none within the time limit.
        """
        return self._guarded(lambda connection: (connection.run(script, keys, arguments), connection.run_id))

    def ping(self) -> None:
        self._guarded(lambda connection: connection.call("PING"))

    def close(self) -> None:
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def _guarded(self, use: "Callable[[_Connection], T]") -> T:
        if self._away and not self._may_try():
            raise Unavailable
        try:
            answer = self._with_connection(use)
        except (OSError, hiredis.HiredisError) as error:
            self._failed(error)
            raise Unavailable from error
        if self._away:
            self._away = False
            log.info("valkey", state="back")
        return answer

    def _with_connection(self, use: "Callable[[_Connection], T]") -> T:
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._with_new_connection(use)
        try:
            answer = use(connection)
        except (ConnectionError, hiredis.ProtocolError):
            connection.close()  # gone stale in the pool, most likely
            return self._with_new_connection(use)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return answer

    def _with_new_connection(self, use: "Callable[[_Connection], T]") -> T:
        connection = _Connection(self._where)
        try:
            answer = use(connection)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return answer

    def _may_try(self) -> bool:
        now = time.monotonic()
        with self._lock:
            if now < self._try_at:
                return False
            self._try_at = now + RETRY_AFTER
            return True

    def _failed(self, error: Exception) -> None:
        with self._lock:
            first, self._away = not self._away, True
            self._try_at = time.monotonic() + RETRY_AFTER
        if first:
            log.warning("valkey", state="away", error=repr(error))
        self.close()


class _Connection:
    """One socket, speaking RESP. Not thread-safe.

    It never outlives the server process at its other end, so ``run_id`` names that.
    """

    def __init__(self, where: dict[str, Any]) -> None:
        self._reader = hiredis.Reader()
        self._socket = _open(where)
        self._recv = self._socket.recv
        try:
            if (password := where.get("password")) is not None:
                self.call("AUTH", where.get("username") or "default", password)
            if database := where.get("db"):
                self.call("SELECT", database)
            self.run_id: bytes = _RUN_ID.findall(self.call("INFO", "server"))[0]
        except BaseException:
            self.close()
            raise

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        try:
            return self.call("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except hiredis.ReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        return self.call("EVAL", script.source, len(keys), *keys, *arguments)

    def call(self, *command: Argument) -> Any:
        self._socket.sendall(_pack(command))
        while (answer := self._reader.gets()) is False:
            received = self._recv(65_536)
            if not received:
                raise ConnectionError("Valkey closed the connection")
            self._reader.feed(received)
        if isinstance(answer, hiredis.ReplyError):
            raise answer
        return answer

    def close(self) -> None:
        with suppress(OSError):
            self._socket.close()


def _open(where: dict[str, Any]) -> socket.socket:
    if path := where.get("path"):
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            opened.settimeout(CONNECT_TIMEOUT)
            opened.connect(path)
        except BaseException:
            opened.close()
            raise
    else:
        host = where.get("host", "localhost")
        opened = socket.create_connection((host, where.get("port", 6379)), CONNECT_TIMEOUT)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if where.get("connection_class") is SSLConnection:
            return _encrypt(opened, host)
    _limit_waits(opened)
    return opened


def _limit_waits(opened: socket.socket) -> None:
    """Let the kernel enforce the time limit: Python's own costs a ``poll`` before each call."""
    opened.settimeout(None)
    limit = struct.pack("ll", int(TIMEOUT), int(TIMEOUT % 1 * 1_000_000))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _encrypt(opened: socket.socket, host: str) -> socket.socket:
    opened.settimeout(TIMEOUT)
    try:
        return ssl.create_default_context().wrap_socket(opened, server_hostname=host)
    except BaseException:
        opened.close()
        raise
