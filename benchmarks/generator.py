"""Load for machines without ``wrk``: each connection asks again as soon as it is answered.

python -m benchmarks.generator PORT PATH TOKEN CONNECTIONS SECONDS
"""

import asyncio
import json
import sys
import time
from contextlib import suppress

from .rig import percentile
from .wire import request, whole


class Asking(asyncio.Protocol):
    """One connection. What took how long (in ms) goes to ``latencies``; ``failed`` is told of a wrong answer."""

    def __init__(self, question: bytes, latencies: list[float], failed: "asyncio.Future[None]") -> None:
        self._question, self._latencies, self._failed = question, latencies, failed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._answer, self._asked = b"", time.perf_counter()
        self._transport.write(self._question)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        try:
            if whole(self._answer):
                self._latencies.append((time.perf_counter() - self._asked) * 1000)
                self._ask()
        except ValueError as problem:
            self._fail(problem)

    def connection_lost(self, problem: Exception | None) -> None:
        self._fail(problem or ConnectionError("the connection was closed"))

    def _fail(self, problem: Exception) -> None:
        if not self._failed.done():
            self._failed.set_exception(problem)


async def load(port: int, question: bytes, connections: int, seconds: float) -> dict[str, float]:
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    failed = loop.create_future()
    begun = time.perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: Asking(question, latencies, failed), "127.0.0.1", port)
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(failed), seconds)
    took = time.perf_counter() - begun
    failed.cancel()
    return {"rate": len(latencies) / took, "p50": percentile(latencies, 50), "p99": percentile(latencies, 99)}


def main() -> None:
    port, path, token, connections, seconds = sys.argv[1:]
    question = request(path, int(port), token)
    try:
        print(json.dumps(asyncio.run(load(int(port), question, int(connections), float(seconds)))))
    except (OSError, ValueError) as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
