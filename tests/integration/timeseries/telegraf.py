"""Telegraf, the real one where there is one (``TELEGRAF=path``, or in ``PATH``), else what sends its requests."""

import http.client
import os
import shutil
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode, urlsplit

import msgspec

from ..waiting import wait_until

PROGRAM = os.environ.get("TELEGRAF") or shutil.which("telegraf")
BATCH = 500
"""``metric_batch_size``."""

_CONFIG = """
[agent]
  interval = "1s"
  flush_interval = "1s"
  metric_batch_size = {batch}
  metric_buffer_limit = 50000
  omit_hostname = true
  skip_processors_after_aggregators = true
[[inputs.socket_listener]]
  service_address = "tcp://127.0.0.1:{port}"
  data_format = "influx"
[[outputs.influxdb_v2]]
  urls = ["{url}"]
  token = "{token}"
  organization = "{org}"
  bucket = "{bucket}"
  content_encoding = "gzip"
"""


class Target(msgspec.Struct):
    """Where points go: ``url`` is what InfluxDB's would be."""

    url: str
    token: str
    org: str
    bucket: str


class Agent(Protocol):
    def send(self, lines: Sequence[str]) -> None:
        """Take metrics in, in line protocol with times in nanoseconds."""
        ...

    def log(self) -> str:
        """What it has said so far."""
        ...


class Telegraf:
    """The real one."""

    def __init__(self, folder: Path, port: int) -> None:
        self._log = folder / "telegraf.log"
        self._port = port

    def send(self, lines: Sequence[str]) -> None:
        with socket.create_connection(("127.0.0.1", self._port), 10) as connection:
            connection.sendall("".join(f"{line}\n" for line in lines).encode())

    def log(self) -> str:
        return self._log.read_text()

    @contextmanager
    def running(self, folder: Path, target: Target) -> Iterator["Telegraf"]:
        config = folder / "telegraf.conf"
        config.write_text(_CONFIG.format(batch=BATCH, port=self._port, **msgspec.structs.asdict(target)))
        with self._log.open("wb") as log:
            command = [str(PROGRAM), "--config", str(config)]
            process = subprocess.Popen(command, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]})
            try:
                wait_until(lambda: "Listening on" in self.log(), 30)
                yield self
            finally:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()
                process.wait()


class Imitation:
    """Sends what Telegraf 1.39.3 does, and does with answers and says of them what that does."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._metrics: list[str] = []
        self._said: list[str] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._retries = 0

    def send(self, lines: Sequence[str]) -> None:
        with self._lock:
            self._metrics += lines

    def log(self) -> str:
        with self._lock:
            return "\n".join(self._said)

    @contextmanager
    def running(self) -> Iterator["Imitation"]:
        thread = threading.Thread(target=self._flush)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join(60)

    def _flush(self) -> None:
        while not self._stop.wait(0.1):
            while not self._stop.is_set() and (wait := self._write()) is not None:
                self._stop.wait(wait)

    def _write(self) -> float | None:
        """Send a batch; for how long to wait before the next, None until there is more."""
        with self._lock:
            batch = self._metrics[:BATCH]
        if not batch:
            return None
        try:
            status, reason, retry_after, body = request(self._target, batch)
        except (OSError, http.client.HTTPException) as error:
            self._say(f"failed to send: {error!r}")
            return 1.0
        told = f"failed to write metrics to {self._target.bucket} ("
        if status in {429, 502, 503, 504}:
            self._retries += 1
            wait = max(self._retries**2 / 40, float(retry_after or 0))
            self._say(f"failed to write to {self._target.bucket}; will retry in {wait}s. ({status} {reason})")
            return wait
        if status in {401, 403} or status >= 500:
            self._say(f"{told}{status} {reason}): {_described(body)}")
            return 1.0
        if status >= 300:
            assert status != 413, "not imitated"
            self._say(f"{told}will be dropped: {status} {reason}): {_described(body)}")
        self._retries = 0
        with self._lock:
            del self._metrics[: len(batch)]
        return 0.0

    def _say(self, line: str) -> None:
        with self._lock:
            self._said.append(f"{time.strftime('%FT%TZ', time.gmtime())} E! [outputs.influxdb_v2] {line}")


class _Said(msgspec.Struct):
    code: str = ""
    message: str = ""


def _described(body: bytes) -> str:
    said = msgspec.json.decode(body, type=_Said)
    return f"{said.code}: {said.message}"


def request(target: Target, lines: Sequence[str]) -> tuple[int, str, str | None, bytes]:
    """Status, reason, ``Retry-After`` and body of the answer to a batch."""
    where = urlsplit(target.url)
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress("".join(f"{line}\n" for line in lines).encode()) + packer.flush()
    connection = http.client.HTTPConnection(where.netloc, timeout=5)  # its default ``timeout``
    try:
        connection.putrequest(
            "POST",
            f"{where.path}/api/v2/write?{urlencode({'bucket': target.bucket, 'org': target.org})}",
            skip_accept_encoding=True,
        )
        for name, value in HEADERS.items():
            connection.putheader(name, value)
        connection.putheader("Authorization", f"Token {target.token}")
        connection.endheaders()
        connection.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(packed), packed))
        answer = connection.getresponse()
        return answer.status, answer.reason, answer.getheader("Retry-After"), answer.read()
    finally:
        connection.close()


HEADERS = {
    "User-Agent": "Telegraf/1.39.3 Go/1.26.8",
    "Transfer-Encoding": "chunked",
    "Content-Encoding": "gzip",
    "Content-Type": "text/plain; charset=utf-8",
    "Accept-Encoding": "gzip",
}


@contextmanager
def agent(folder: Path, port: int, target: Target) -> Iterator[Agent]:
    """One that runs, and takes metrics at ``port``."""
    if PROGRAM:
        with Telegraf(folder, port).running(folder, target) as telegraf:
            yield telegraf
    else:
        with Imitation(target).running() as imitation:
            yield imitation
