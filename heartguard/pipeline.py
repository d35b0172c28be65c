"""Valkey/Redis for an event loop: one connection, on which the commands of all callers follow one another.

None waits for another's answer, and no thread for anything: a command costs a tenth of what it costs redis-py.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import hiredis
from hiredis import HiredisError
from redis.connection import SSLConnection, parse_url

from .errors import Unavailable
from .logs import log
from .resp import CONNECT_TIMEOUT, RETRY_AFTER, RUN_ID, TIMEOUT, Argument, Script, greeting, pack


class Line(asyncio.Protocol):
    """One connection. It never outlives the server process at its other end, so ``run_id`` names that."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self.open = False
        self.run_id = b""

    @classmethod
    async def connect(cls, url: str) -> "Line":
        where: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT):
            if path := where.get("path"):
                _, line = await loop.create_unix_connection(cls, path)
            else:
                encrypted = ssl.create_default_context() if where.get("connection_class") is SSLConnection else None
                host, port = where.get("host", "localhost"), where.get("port", 6379)
                _, line = await loop.create_connection(cls, host, port, ssl=encrypted)
        try:
            for command in greeting(where):
                answer = await line.call(*command)
            line.run_id = RUN_ID.findall(answer)[0]
        except BaseException:
            line.close()
            raise
        return line

    def call(self, *command: Argument) -> asyncio.Future[Any]:
        """The answer to come; it fails with an ``OSError`` or a ``HiredisError``."""
        answer = self._loop.create_future()
        if not self.open:
            answer.set_exception(ConnectionError("the connection is closed"))
            return answer
        self._waiting.append((answer, self._loop.time() + TIMEOUT))
        self._transport.write(pack(command))
        if self._watch is None:
            self._watch = self._loop.call_later(TIMEOUT, self._look)
        return answer

    def close(self, reason: Exception | None = None) -> None:
        self.open = False
        if self._watch is not None:
            self._watch.cancel()
        self._transport.abort()
        while self._waiting:
            answer, _ = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(reason or ConnectionError("the connection was closed"))

    def _look(self) -> None:
        """One timer watches over all that wait: the first waits longest."""
        self._watch = None
        if not self._waiting:
            return
        left = self._waiting[0][1] - self._loop.time()
        if left <= 0:
            self.close(TimeoutError("no answer in time"))
        else:
            self._watch = self._loop.call_later(left, self._look)

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.open = True

    def data_received(self, received: bytes) -> None:
        try:
            self._reader.feed(received)
            while (found := self._reader.gets()) is not False:
                answer, _ = self._waiting.popleft()
                if answer.done():
                    continue  # whoever asked has gone
                if isinstance(found, hiredis.ReplyError):
                    answer.set_exception(found)
                else:
                    answer.set_result(found)
        except (HiredisError, IndexError) as error:
            self.close(ConnectionError(f"this is no Valkey: {error!r}"))

    def connection_lost(self, error: Exception | None) -> None:
        self.close(ConnectionError(repr(error)))


class Pipeline:
    """Runs scripts over a :class:`Line` that is made when it is needed, and made anew when it was lost.

    For one event loop. Once Valkey has failed to answer, calls fail at once, and every :data:`RETRY_AFTER` seconds
    one of them tries again: no call ever waits longer than the short time limits.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._line: Line | None = None
        self._connecting: asyncio.Task[Line] | None = None
        self._away = False
        self._try_at = 0.0

    @property
    def away(self) -> bool:
        return self._away

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> tuple[Any, bytes]:
        """The script's answer, and the ``run_id`` of the Valkey process that gave it.

        Raises :class:`Unavailable` where there is no answer within the time limit.
        """
        try:
            return await self._call("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except hiredis.ReplyError as error:
            if not _is_unknown(error):
                raise
        return await self._call("EVAL", script.source, len(keys), *keys, *arguments)

    async def ping(self) -> None:
        await self._call("PING")

    def close(self) -> None:
        if self._line is not None:
            self._line.close()

    async def _call(self, *command: Argument) -> tuple[Any, bytes]:
        """The answer, and whose it is. Raises :class:`Unavailable`, or what says that a script is not known."""
        if self._away and not self._may_try():
            raise Unavailable
        try:
            line = self._line
            if line is None or not line.open:
                line = await self._connected()
            try:
                answer = await line.call(*command)
            except ConnectionError:  # Valkey was restarted, most likely
                line = await self._connected()
                answer = await line.call(*command)
        except (OSError, HiredisError) as error:
            if _is_unknown(error):
                self._succeeded()
                raise
            self._failed(error)
            raise Unavailable from error
        self._succeeded()
        return answer, line.run_id

    async def _connected(self) -> Line:
        """A line that is open; all who want one while it is made wait for the same."""
        if self._line is not None and self._line.open:
            return self._line
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> Line:
        try:
            self._line = await Line.connect(self._url)
            return self._line
        finally:
            self._connecting = None

    def _may_try(self) -> bool:
        now = time.monotonic()
        if now < self._try_at:
            return False
        self._try_at = now + RETRY_AFTER
        return True

    def _succeeded(self) -> None:
        if self._away:
            self._away = False
            log.info("valkey", state="back")

    def _failed(self, error: Exception) -> None:
        first, self._away = not self._away, True
        self._try_at = time.monotonic() + RETRY_AFTER
        if first:
            log.warning("valkey", state="away", error=repr(error))


def _is_unknown(error: Exception) -> bool:
    """Whether a script was called that this Valkey has not been told."""
    return isinstance(error, hiredis.ReplyError) and str(error).startswith("NOSCRIPT")
