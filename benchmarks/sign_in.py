"""Signing in: how many a second beside what the passwords alone cost, and whether its time tells known addresses.

The auth service has one core and one process, as the bare hashing has in its turns; PostgreSQL, Valkey and the clients
share the other core.
"""

import json
import random
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from heartguard.settings import ROOT

from .context import Broken, Context
from .results import Row, Target
from .rig import (
    OTHER_CORE,
    SERVICE_CORE,
    UNLIMITED,
    Client,
    children,
    folder,
    free_port,
    on_core,
    postgres,
    service,
    together,
    two_cores,
    valkey,
)

CLIENTS = 8
TRIES_EACH = 10
"""Wrong passwords that the lock-out lets through."""
LIMIT_MS = 1.0
RIGHT, WRONG = secrets.token_urlsafe(), secrets.token_urlsafe()
KINDS = ("known", "unknown")
Times = dict[str, list[float]]


@dataclass(frozen=True)
class Auth:
    """The running service: its port, and the process that serves."""

    port: int
    worker: int

    def ask(self, client: Client, path: str, email: str, password: str, expected: int) -> None:
        status, answer = client.post(f"/auth/{path}", json.dumps({"email": email, "password": password}).encode())
        if status != expected:
            raise Broken(f"{path} was answered {status}: {answer[:300]!r}")

    def register(self, names: list[str]) -> None:
        client = Client(self.port)
        for name in names:
            self.ask(client, "register", email(name), RIGHT, 201)
        client.close()


def email(name: str) -> str:
    return f"{name}@hg.io"


@contextmanager
def auth_service() -> Iterator[Auth]:
    port = free_port()
    with ExitStack() as stack:
        where = stack.enter_context(folder())
        database = stack.enter_context(postgres(where))
        store = stack.enter_context(valkey(where))
        variables = {
            "DATABASE_URL": database.store.url_for("auth"),
            "REDIS_URL": store.url,
            "AUTH_RATE_LIMIT": UNLIMITED,
            "BOOTSTRAP_ADMIN_PASSWORD": secrets.token_urlsafe(),
        }
        running = stack.enter_context(service("auth", port, **variables))
        yield Auth(port, children(running.pid)[0])


def run(context: Context) -> list[Row]:
    two_cores()
    with auth_service() as auth, on_core(OTHER_CORE):
        return [*throughput(auth, context), *timing(auth, context)]


def throughput(auth: Auth, context: Context) -> list[Row]:
    """Sign-ins per second and the bare cost, in turns."""
    rounds, seconds = context.choose((5, 6), (2, 3))
    names = [f"signs-in-{number}" for number in range(CLIENTS)]
    auth.register(names)
    sign_in(auth, names, 1)
    ours, bare = [], []
    for number in range(1, rounds + 1):
        context.say(f"sign-in: round {number} of {rounds}")
        ours.append(sign_in(auth, names, seconds))
        bare.append(hashing(seconds))
    (rate, cpu), (bare_rate, bare_cpu) = medians(ours), medians(bare)
    return [
        Row(
            benchmark="sign-in", what="HeartGuard", unit="/s",
            value=round(rate, 1),
            details={"CPU ms": round(cpu, 2)},
            note=f"{CLIENTS} clients, one process on one core",
        ),
        Row(
            benchmark="sign-in", what="Argon2id alone", unit="/s",
            value=round(bare_rate, 1), ours=False, ratio=round(rate / bare_rate, 3), target=Target("≥", 0.95),
            details={"CPU ms": round(bare_cpu, 2), "ratio by CPU": round(bare_cpu / cpu, 3)},
        ),
    ]  # fmt: skip


def medians(rounds: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(rate for rate, _ in rounds), statistics.median(cpu for _, cpu in rounds)


def sign_in(auth: Auth, names: list[str], seconds: float) -> tuple[float, float]:
    """Sign-ins per second, and the service's CPU milliseconds for each; one client for each of the accounts."""
    spent = cpu_ns(auth.worker)
    done = [0] * len(names)
    begun = time.monotonic()

    def again_and_again(number: int) -> None:
        client = Client(auth.port)
        while time.monotonic() - begun < seconds:
            auth.ask(client, "login", email(names[number]), RIGHT, 200)
            done[number] += 1
        client.close()

    together([lambda number=number: again_and_again(number) for number in range(len(names))])  # type: ignore[misc]
    return sum(done) / (time.monotonic() - begun), (cpu_ns(auth.worker) - spent) / sum(done) / 1e6


def hashing(seconds: float) -> tuple[float, float]:
    """Verifications per second, and the CPU milliseconds of each."""
    command = [sys.executable, "-m", "benchmarks.argon2", str(seconds)]
    with on_core(SERVICE_CORE):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=seconds + 30)
    rate, cpu = map(float, done.stdout.split())
    return rate, cpu


def timing(auth: Auth, context: Context) -> list[Row]:
    """The difference that a known address makes to the time of a refusal."""
    wall, cpu = refusals(auth, context, context.choose(1000, 100))
    middle = {kind: statistics.median(wall[kind]) for kind in KINDS}
    differences = [abs(statistics.median(of["known"]) - statistics.median(of["unknown"])) for of in (wall, cpu)]
    return [
        Row(
            benchmark="sign-in", what="refusals, known against unknown address", unit="ms",
            value=round(differences[0], 3), target=Target("≤", LIMIT_MS),
            details={
                **{f"{kind} ms": round(median, 2) for kind, median in middle.items()},
                "difference in CPU time ms": round(differences[1], 3),
                "tries of each": len(wall["known"]),
            },
        )
    ]  # fmt: skip


def refusals(auth: Auth, context: Context, tries: int) -> tuple[Times, Times]:
    """Wall-clock and CPU milliseconds of refused sign-ins in random turns, by whether the address is known."""
    accounts = -(-tries // TRIES_EACH)
    context.say(f"sign-in: making {accounts} accounts")
    auth.register([f"known-{number:04}" for number in range(accounts)])
    wall: Times = {kind: [] for kind in KINDS}
    cpu: Times = {kind: [] for kind in KINDS}
    plan = [(kind, number) for kind in KINDS for number in range(accounts) for _ in range(TRIES_EACH)]
    random.shuffle(plan)
    client = Client(auth.port)
    for number in range(20):  # warms up
        auth.ask(client, "login", email(f"warm-{number:05}"), WRONG, 401)
    for done, (kind, number) in enumerate(plan):
        if done % 200 == 0:
            context.say(f"sign-in: {done} of {len(plan)} refusals")
        spent, begun = cpu_ns(auth.worker), time.perf_counter()
        auth.ask(client, "login", email(f"{'known' if kind == 'known' else 'other'}-{number:04}"), WRONG, 401)
        wall[kind].append((time.perf_counter() - begun) * 1000)
        cpu[kind].append((cpu_ns(auth.worker) - spent) / 1e6)
    client.close()
    return wall, cpu


def cpu_ns(pid: int) -> int:
    """Nanoseconds that all threads of the process have run."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
