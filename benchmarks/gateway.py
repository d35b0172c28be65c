"""The gateway's proxied path beside a Node gateway: same machine, same run, one core each, rounds in turn.

    python benchmarks/gateway.py --cache ~/.cache/heartguard-bench

Needs Linux with two cores, ``taskset``, ``wrk``, ``node`` and ``npm``, and nothing else running. The
gateway under test (and nothing else) has one core; the load generator, the service behind it and
Valkey have the other. All of it listens on 127.0.0.1 or on a socket, and is stopped at the end.
"""

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from heartguard.local.files import private_folder
from heartguard.local.server import Running, wait_until
from heartguard.local.valkey import Valkey
from heartguard.settings import ROOT
from heartguard.tokens import KeyRing, Tokens
from heartguard.valkey import REVOCATIONS_COMPLETE

NODE = Path(__file__).parent / "node"
SECRET = "a benchmark needs no secret worth keeping"
PATH = "/auth/profile"
GATEWAY_CORE, OTHER_CORE = 0, 1
CONNECTIONS = 16
START_TIMEOUT = 30.0
WARM_UP = 2
"""Seconds."""
UNLIMITED = "1000000/s"


@dataclass(frozen=True)
class Round:
    """What ``wrk`` saw in one round. Latencies in milliseconds; ``cpu`` is the gateway's, in µs per request."""

    requests_per_second: float
    p50: float
    p99: float
    cpu: float


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def install_peer(cache: Path) -> Path:
    """The Node gateway with its packages, installed by npm where they are not yet."""
    folder = cache / "node-gateway"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = (NODE / "package.json").read_text()
    installed = folder / "package.json"
    if not installed.exists() or installed.read_text() != wanted or not (folder / "node_modules").is_dir():
        installed.write_text(wanted)
        npm = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--omit=dev"]
        subprocess.run(npm, cwd=folder, check=True, timeout=600)
    for script in NODE.glob("*.mjs"):
        shutil.copy(script, folder)
    return folder


@contextmanager
def program(core: int, command: list[str], url: str, cwd: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` on one core until the block ends; begins once ``url`` is answered in any way."""
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}
    with tempfile.TemporaryFile() as output:
        running = subprocess.Popen(
            ["taskset", "-c", str(core), *command], cwd=cwd, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            wait_until(lambda: running.poll() is not None or answers(url), f"{url} did not answer", START_TIMEOUT)
            if running.poll() is not None:
                output.seek(0)
                sys.exit(f"{command[0]} ended:\n{output.read().decode(errors='replace')[-2000:]}")
            yield running
        finally:
            running.terminate()
            running.wait(20)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children that live."""
    total = 0.0
    for task in [pid, *children(pid)]:
        fields = Path(f"/proc/{task}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def children(pid: int) -> list[int]:
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*found, *(grandchild for child in found for grandchild in children(child))]


def load(url: str, token: str, seconds: int) -> tuple[float, float, float]:
    """Requests per second, p50 and p99 in ms. Anything but a 2xx ends the run."""
    command = ["taskset", "-c", str(OTHER_CORE), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "--latency"]
    done = subprocess.run(
        [*command, "-H", f"Authorization: Bearer {token}", url],
        capture_output=True, text=True, check=True, timeout=seconds + 30,
    )  # fmt: skip
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        sys.exit(f"{url} failed under load:\n{done.stdout}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert rate, done.stdout
    return float(rate[1]), percentile(done.stdout, 50), percentile(done.stdout, 99)


def percentile(output: str, which: int) -> float:
    found = re.search(rf"{which}%\s+([\d.]+)(us|ms|s)", output)
    assert found, output
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]


def measure(running: subprocess.Popen[bytes], url: str, token: str, seconds: int) -> Round:
    before = cpu_seconds(running.pid)
    rate, p50, p99 = load(url, token, seconds)
    return Round(rate, p50, p99, (cpu_seconds(running.pid) - before) / (rate * seconds) * 1e6)


def summary(rounds: list[Round]) -> dict[str, float]:
    """The medians."""
    return {
        name: round(statistics.median(getattr(one, name) for one in rounds), 3)
        for name in ("requests_per_second", "p50", "p99", "cpu")
    }


def compare(cache: Path, rounds: int, seconds: int) -> dict[str, object]:
    peer = install_peer(cache)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hg-")))
        private_folder(folder / "secrets")
        valkey = Valkey(folder / "valkey", folder / "secrets")
        os.sched_setaffinity(0, {OTHER_CORE})
        stack.callback(Running(valkey).stop)
        token = prepare(valkey)
        upstream, our_port, their_port = free_port(), free_port(), free_port()
        upstream_url = f"http://127.0.0.1:{upstream}"
        stack.enter_context(program(OTHER_CORE, ["node", "upstream.mjs"], upstream_url, peer, PORT=str(upstream)))
        node = stack.enter_context(
            program(
                GATEWAY_CORE, ["node", "gateway.mjs"], f"http://127.0.0.1:{their_port}{PATH}", peer,
                PORT=str(their_port), UPSTREAM=upstream_url, JWT_SECRET=SECRET,
                VALKEY_SOCKET=str(valkey.folder / "valkey.sock"), VALKEY_PASSWORD=password(valkey),
            )
        )  # fmt: skip
        gateway = stack.enter_context(
            program(
                GATEWAY_CORE, [sys.executable, "-m", "heartguard.serve", "gateway"],
                f"http://127.0.0.1:{our_port}/gateway/health", ROOT,
                GATEWAY_PORT=str(our_port), AUTH_URL=upstream_url, JWT_SECRET=SECRET, REDIS_URL=valkey.url,
                RATE_LIMIT=UNLIMITED, AUTH_RATE_LIMIT=UNLIMITED,
            )
        )  # fmt: skip
        contenders = {
            "heartguard": (gateway, f"http://127.0.0.1:{our_port}{PATH}"),
            "fastify": (node, f"http://127.0.0.1:{their_port}{PATH}"),
        }
        seen: dict[str, list[Round]] = {name: [] for name in contenders}
        for _, url in contenders.values():
            load(url, token, WARM_UP)
        for number in range(1, rounds + 1):
            for name, (running, url) in contenders.items():
                seen[name].append(measure(running, url, token, seconds))
                print(f"round {number}  {name:<11}{seen[name][-1].requests_per_second:>8.0f}/s", file=sys.stderr)
    results = {name: summary(found) for name, found in seen.items()}
    ours, theirs = results["heartguard"], results["fastify"]
    return {
        "results": results,
        "ratio": round(ours["requests_per_second"] / theirs["requests_per_second"], 3),
        "ratio_by_cpu": round(theirs["cpu"] / ours["cpu"], 3),
        "rounds": rounds,
        "seconds": seconds,
    }


def password(valkey: Valkey) -> str:
    return str(redis.connection.parse_url(valkey.url)["password"])  # type: ignore[no-untyped-call]


def prepare(valkey: Valkey) -> str:
    """Mark the list of revocations complete; returns a token to call with."""
    with redis.Redis.from_url(valkey.url) as client:
        client.set(REVOCATIONS_COMPLETE, client.info("server")["run_id"])
    tokens = Tokens(KeyRing.from_secret(SECRET.encode()))
    return tokens.issue(sub="1", role="user", org_id=1, sid="bench", typ="access", seconds=3600)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder for the Node packages")
    parser.add_argument("--rounds", type=int, default=5, help="rounds for each gateway (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=5, help="length of a round (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    given = parser.parse_args()
    found = compare(given.cache.expanduser(), given.rounds, given.seconds)
    print(f"{'':<12}{'requests/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'CPU µs':>9}")
    for name, result in found["results"].items():  # type: ignore[attr-defined]
        print("{:<12}{:>11.0f}{:>9.2f}{:>9.2f}{:>9.0f}".format(name, *result.values()))
    print(
        f"ratio {found['ratio']} (by CPU time per request, which others on the machine disturb less: "
        f"{found['ratio_by_cpu']})"
    )
    print(json.dumps(found))
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
