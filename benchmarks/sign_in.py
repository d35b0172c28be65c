"""Whether the time of a refused sign-in tells that the address is known: 1,000 tries each, in turns, over HTTP.

    python benchmarks/sign_in.py [--tries 1000] [--json result.json]

Starts PostgreSQL, Valkey and the auth service in a temporary folder. Each known account is tried ten times, which is
what the lock-out lets through, and so is each unknown address.
"""

import argparse
import json
import os
import random
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3

from heartguard.listening import port_is_free
from heartguard.local.files import private_folder
from heartguard.local.postgres import Postgres
from heartguard.local.server import Running
from heartguard.local.valkey import Valkey
from heartguard.migrate import migrate

TRIES_EACH = 10
LIMIT_MS = 1.0
PASSWORD = "a password that is never the right one"


@contextmanager
def auth_service() -> Iterator[tuple[str, int]]:
    """Its address, and the id of the process that serves."""
    folder = Path(tempfile.mkdtemp(prefix="hg-bench-")).resolve()
    keys = private_folder(folder / "secrets")
    postgres, valkey = Postgres(folder / "postgres", keys), Valkey(folder / "valkey", keys)
    running = [Running(store) for store in (postgres, valkey)]
    port = next(port for port in iter(lambda: random.randrange(20_000, 30_000), 0) if port_is_free("127.0.0.1", port))
    try:
        migrate(postgres.url, passwords={"auth": postgres.password("auth")})
        environ = {
            **os.environ,
            "JWT_SECRET": secrets.token_urlsafe(48),
            "BOOTSTRAP_ADMIN_PASSWORD": secrets.token_urlsafe(),
            "DATABASE_URL": postgres.url_for("auth"),
            "REDIS_URL": valkey.url,
            "AUTH_RATE_LIMIT": "1000000/s",
            "LOG_LEVEL": "INFO",
        }
        command = [sys.executable, "-m", "heartguard.serve", "auth", f"--port={port}"]
        with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL) as server:
            try:
                address = f"http://127.0.0.1:{port}"
                wait_until_ready(address)
                (worker,) = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()[:1]
                yield address, int(worker)
            finally:
                server.terminate()
                server.wait(20)
    finally:
        for one in running:
            one.stop()
        shutil.rmtree(folder)


def wait_until_ready(address: str) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if urllib3.request("GET", f"{address}/auth/ready", retries=False, timeout=2).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.1)
    raise SystemExit("the auth service did not become ready")


def cpu_ns(pid: int) -> int:
    """Nanoseconds that all threads of the process have run."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def measure(tries: int) -> dict[str, dict[str, list[float]]]:
    """Wall-clock and CPU milliseconds of every refused sign-in, by whether the address is known."""
    accounts = -(-tries // TRIES_EACH)
    seen: dict[str, dict[str, list[float]]] = {kind: {"wall": [], "cpu": []} for kind in ("known", "unknown")}
    with auth_service() as (address, worker):
        pool = urllib3.PoolManager(timeout=20, retries=False)

        def ask(path: str, email: str, password: str) -> int:
            body = {"email": email, "password": password}
            return int(pool.request("POST", f"{address}/auth/{path}", json=body).status)

        for number in range(accounts):
            if ask("register", f"known-{number:04}@hg.io", secrets.token_urlsafe()) != 201:
                raise SystemExit("an account could not be made")
        plan = [(kind, number) for kind in seen for number in range(accounts) for _ in range(TRIES_EACH)]
        random.shuffle(plan)
        for warm_up in range(20):
            ask("login", f"warm-{warm_up:06}@hg.io", PASSWORD)
        for done, (kind, number) in enumerate(plan):
            email = f"known-{number:04}@hg.io" if kind == "known" else f"other-{number:04}@hg.io"
            cpu, begun = cpu_ns(worker), time.perf_counter()
            status = ask("login", email, PASSWORD)
            wall = time.perf_counter() - begun
            if status != 401:
                raise SystemExit(f"a sign-in was answered {status}")
            seen[kind]["wall"].append(wall * 1000)
            seen[kind]["cpu"].append((cpu_ns(worker) - cpu) / 1e6)
            if sys.stderr.isatty() and done % 50 == 0:
                print(f"\r{done}/{len(plan)}", end="", file=sys.stderr)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--tries", type=int, default=1000, help="of each kind (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    given = parser.parse_args()
    seen = measure(given.tries)
    medians = {kind: {of: statistics.median(times) for of, times in found.items()} for kind, found in seen.items()}
    differences = {of: abs(medians["known"][of] - medians["unknown"][of]) for of in ("wall", "cpu")}
    print(f"{'':<12}{'median ms':>10}{'p25':>8}{'p75':>8}{'CPU ms':>9}")
    for kind, found in seen.items():
        low, middle, high = statistics.quantiles(found["wall"], n=4)
        print(f"{kind:<12}{middle:>10.2f}{low:>8.2f}{high:>8.2f}{medians[kind]['cpu']:>9.2f}")
    print(
        f"difference of the medians: {differences['wall']:.3f} ms, of CPU time {differences['cpu']:.3f} ms"
        f" (limit {LIMIT_MS} ms)"
    )
    if given.json:
        given.json.write_text(json.dumps({"tries": given.tries, "medians": medians, "differences": differences}) + "\n")
    sys.exit(differences["wall"] > LIMIT_MS)


if __name__ == "__main__":
    main()
