"""What the gateway adds to a request when it has little to do: through it and past it, in turns."""

import socket
import time

from .context import Broken, Context
from .gateway import PATH, heartguard, staged
from .results import Row, Target
from .rig import OTHER_CORE, folder, on_core, percentile, token, two_cores
from .wire import request, whole

RATE = 200
"""Requests a second."""
TURN = 50
"""Requests one way before it is the other's turn."""
LIMITS = {50: 1.0, 99: 5.0}
"""Milliseconds, by percentile."""
TIMEOUT = 10.0


class Line:
    """One connection that asks one question; :meth:`ask` takes so many milliseconds."""

    def __init__(self, port: int, bearer: str) -> None:
        self._question = request(PATH, port, bearer)
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.latencies: list[float] = []

    def ask(self) -> float:
        begun, answer = time.perf_counter(), b""
        self._socket.sendall(self._question)
        while not whole(answer):
            received = self._socket.recv(65_536)
            if not received:
                raise Broken("the connection was closed")
            answer += received
        return (time.perf_counter() - begun) * 1000

    def turn(self) -> None:
        for _ in range(TURN):
            time.sleep(1 / RATE)
            self.latencies.append(self.ask())

    def close(self) -> None:
        self._socket.close()


def run(context: Context) -> list[Row]:
    two_cores()
    turns = context.choose(100, 8)
    with folder() as where, staged(where) as scene, heartguard(scene) as (port, _), on_core(OTHER_CORE):
        through, direct = Line(port, token()), Line(scene.upstream, token())
        for line in (through, direct):
            line.turn()  # warms up
            line.latencies.clear()
        for number in range(turns):
            if number % 5 == 0:
                context.say(f"latency: turn {number} of {turns}")
            for line in (through, direct):
                line.turn()
        through.close()
        direct.close()
    return [row(which, through.latencies, direct.latencies) for which in LIMITS]


def row(which: int, through: list[float], direct: list[float]) -> Row:
    with_it, without = percentile(through, which), percentile(direct, which)
    return Row(
        benchmark="latency", what=f"added by the gateway, p{which}", unit="ms", value=round(with_it - without, 3),
        target=Target("≤", LIMITS[which]), details={"through": round(with_it, 3), "direct": round(without, 3)},
        note=f"{RATE} requests/s on one connection",
    )  # fmt: skip
