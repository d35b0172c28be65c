"""The gateway's proxied path beside other gateways: the same job, in one run, in turns, one core each."""

import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

from heartguard.services import SERVICES

from .context import Broken, Context, Unavailable
from .load import Seen, generator, load
from .peers import PEERS
from .peers.scene import Scene
from .results import Row, Target, absent
from .rig import (
    OTHER_CORE,
    UNLIMITED,
    cpu_seconds,
    folder,
    free_port,
    program,
    service,
    status_of,
    token,
    two_cores,
    valkey,
)

PATH = "/auth/profile"
WARM_UP = 2
"""Seconds."""
UNIT = "requests/s"


@dataclass
class Contender:
    """A gateway that runs, and what was seen of it. ``cpu`` is its CPU time per request, in µs."""

    name: str
    port: int
    running: Popen[bytes]
    target: Target | None = None
    rounds: list[Seen] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    broken: str = ""
    """What it did instead of its work."""

    def warm_up(self, bearer: str) -> None:
        """Also sees to it that it does its job: without a token nobody gets through."""
        if (status := status_of(f"http://127.0.0.1:{self.port}{PATH}")) != 401:
            raise Broken(f"answers {status} to a request without a token")
        load(self.port, PATH, bearer, WARM_UP)

    def round(self, bearer: str, seconds: int) -> None:
        before = cpu_seconds(self.running.pid)
        seen = load(self.port, PATH, bearer, seconds)
        self.rounds.append(seen)
        self.cpu.append((cpu_seconds(self.running.pid) - before) / (seen.rate * seconds) * 1e6)

    @property
    def rate(self) -> float:
        return statistics.median(seen.rate for seen in self.rounds)

    @property
    def cpu_us(self) -> float:
        return statistics.median(self.cpu)

    def row(self, ours: "Contender") -> Row:
        if self.broken:
            return absent("gateway", self.name, UNIT, self.broken, self.target)
        details = {
            "p50 ms": statistics.median(seen.p50 for seen in self.rounds),
            "p99 ms": statistics.median(seen.p99 for seen in self.rounds),
            "CPU µs": self.cpu_us,
        }
        ratio = None
        if self is not ours:
            ratio = round(ours.rate / self.rate, 3)
            details["ratio by CPU"] = self.cpu_us / ours.cpu_us
        return Row(
            benchmark="gateway", what=self.name, unit=UNIT, value=round(self.rate, 1), ours=self is ours, ratio=ratio,
            target=self.target,
            details={name: round(value, 3) for name, value in details.items()},
        )  # fmt: skip


def run(context: Context) -> list[Row]:
    two_cores()
    with ExitStack() as stack:
        scene = stack.enter_context(staged(stack.enter_context(folder())))
        ours = Contender("HeartGuard", *stack.enter_context(heartguard(scene)))
        others, missing = started(stack, context, scene)
        compare([ours, *others], context)
        direct = load(scene.upstream, PATH, token(), context.choose(5, 2))
    rows = {other.name: other.row(ours) for other in others} | missing
    return [ours.row(ours), *(rows[peer.name] for peer in PEERS), ceiling(direct)]


def ceiling(direct: Seen) -> Row:
    return Row(
        benchmark="gateway", what="no gateway: the generator's limit", unit=UNIT, value=round(direct.rate, 1),
        ours=False, note=f"all on one core; load by {generator()}",
    )  # fmt: skip


@contextmanager
def staged(where: Path) -> Iterator[Scene]:
    """The service behind the gateways, and Valkey, on the core that is not the gateways'."""
    port = free_port()
    with valkey(where) as store:
        command = [sys.executable, "-m", "benchmarks.upstream", str(port)]
        with program(command, f"http://127.0.0.1:{port}/", {}, core=OTHER_CORE):
            yield Scene(port, store.url)


@contextmanager
def heartguard(scene: Scene) -> Iterator[tuple[int, Popen[bytes]]]:
    """Our gateway as the product runs it, with limits so high that they never bite."""
    port, behind = free_port(), f"http://127.0.0.1:{scene.upstream}"
    urls = {one.url_variable: behind for one in SERVICES.values() if one.name != "gateway"}
    limits = {"RATE_LIMIT": UNLIMITED, "AUTH_RATE_LIMIT": UNLIMITED}
    with service("gateway", port, REDIS_URL=scene.valkey_url, **urls, **limits) as running:
        yield port, running


def started(stack: ExitStack, context: Context, scene: Scene) -> tuple[list[Contender], dict[str, Row]]:
    """The peers, running until ``stack`` ends; and the rows of those that cannot, by name."""
    running, missing = [], {}
    for peer in PEERS:
        try:
            installed, port = peer.install(context), free_port()
            process = stack.enter_context(peer.start(installed, scene, port))
        except (Unavailable, Broken) as problem:
            missing[peer.name] = absent("gateway", peer.name, UNIT, str(problem), peer.target)
        else:
            running.append(Contender(peer.name, port, process, peer.target))
    return running, missing


def compare(contenders: list[Contender], context: Context) -> None:
    """Round after round, each in its turn. A peer that fails is out; ours, which is the first, must not."""
    bearer = token()
    rounds, seconds = context.choose((5, 5), (2, 3))
    for number in range(rounds + 1):
        for contender in contenders:
            if contender.broken:
                continue
            context.say(f"gateway: {f'round {number} of {rounds}' if number else 'warming up'}, {contender.name}")
            try:
                contender.round(bearer, seconds) if number else contender.warm_up(bearer)
            except Broken as problem:
                if contender is contenders[0]:
                    raise
                contender.broken = str(problem)
