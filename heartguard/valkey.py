"""Valkey/Redis with time limits, for threads: redis-py for ordinary use, a bare connection for scripts."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hiredis import HiredisError, ProtocolError
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from .errors import Unavailable
from .logs import log
from .resp import CONNECT_TIMEOUT, RETRY_AFTER, TIMEOUT, Argument, Connection, Script

REVOKED_TOKEN = "revoked:jti:"
REVOKED_SESSION = "revoked:sid:"
REVOCATIONS_COMPLETE = "revocations:complete"
"""Holds the ``run_id`` (``INFO server``) of the Valkey process that was told every revocation.

Absent, or another process's: this one may lack some (it restarted, empty or with an older copy of its
data), so ask the auth service instead.
"""

T = TypeVar("T")


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


class FastValkey:
    """Runs scripts over plain sockets, at a third of redis-py's cost.

    Thread-safe. Connections are pooled, at most one per thread that is calling. Once Valkey has
    failed to answer, calls fail at once, and every :data:`RETRY_AFTER` seconds one of them tries
    again: no call ever waits longer than the short time limits above.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._away = False
        self._try_at = 0.0

    @property
    def away(self) -> bool:
        return self._away

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> tuple[Any, bytes]:
        """The script's answer, and the ``run_id`` of the Valkey process that gave it.

        Raises :class:`Unavailable` where there is no answer within the time limit.
        """
        return self._guarded(lambda connection: (connection.run(script, keys, arguments), connection.run_id))

    def ping(self) -> None:
        self._guarded(lambda connection: connection.call("PING"))

    def close(self) -> None:
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def _guarded(self, use: Callable[[Connection], T]) -> T:
        if self._away and not self._may_try():
            raise Unavailable
        try:
            answer = self._with_connection(use)
        except (OSError, HiredisError) as error:
            self._failed(error)
            raise Unavailable from error
        if self._away:
            self._away = False
            log.info("valkey", state="back")
        return answer

    def _with_connection(self, use: Callable[[Connection], T]) -> T:
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._with_new_connection(use)
        try:
            answer = use(connection)
        except (ConnectionError, ProtocolError):
            connection.close()  # gone stale in the pool, most likely
            return self._with_new_connection(use)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return answer

    def _with_new_connection(self, use: Callable[[Connection], T]) -> T:
        connection = Connection(self._url)
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
