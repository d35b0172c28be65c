"""A bare connection to Valkey/Redis: one plain socket that speaks RESP."""

import hashlib
import re
import socket
import ssl
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import hiredis
from redis.connection import SSLConnection, parse_url

CONNECT_TIMEOUT = 0.5
TIMEOUT = 0.5
"""Seconds that any answer may take."""
RETRY_AFTER = 1.0
"""Seconds to leave a Valkey alone that did not answer; then one call tries it, while the others still fail at once."""

Argument = str | int | bytes

RUN_ID = re.compile(rb"run_id:(\w+)")
"""Where the answer to ``INFO server`` names the process."""
pack: Callable[[tuple[Argument, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]


class Script:
    """A Lua script, which Valkey knows by its hash once it has seen it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


def greeting(where: dict[str, Any]) -> Iterator[tuple[str | int, ...]]:
    """What to say first on a connection to ``where``; the last answer holds the :data:`RUN_ID`."""
    if (password := where.get("password")) is not None:
        yield "AUTH", where.get("username") or "default", password
    if database := where.get("db"):
        yield "SELECT", database
    yield "INFO", "server"


class Connection:
    """One socket, speaking RESP. Not thread-safe.

    It never outlives the server process at its other end, so ``run_id`` names that.
    """

    def __init__(self, url: str) -> None:
        where: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
        self._reader = hiredis.Reader()
        self._socket = _open(where)
        try:
            for command in greeting(where):
                answer = self.call(*command)
            self.run_id: bytes = RUN_ID.findall(answer)[0]
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
        self._socket.sendall(pack(command))
        while (answer := self._reader.gets()) is False:
            received = self._socket.recv(65_536)
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
