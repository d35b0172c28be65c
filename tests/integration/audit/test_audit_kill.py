"""``kill -9`` in the middle of it all: every acknowledged event is recorded, and none twice.

Emitters, in a process of their own, send events by the stream (or the spool, while Valkey is away) and commit others
through the outbox; they write down the id of each that was acknowledged. Emitters, the audit service, Valkey and
PostgreSQL are killed in turns. ``HEARTGUARD_KILLS=200`` does it that often.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from heartguard.audit import verify
from heartguard.database import Database
from heartguard.local.errors import SetupError
from heartguard.local.files import private_folder
from heartguard.local.postgres import Postgres
from heartguard.local.readiness import is_ready
from heartguard.local.server import Running, Store
from heartguard.local.valkey import Valkey
from heartguard.migrate import migrate
from heartguard.services import SERVICES
from heartguard.settings import ROOT
from services.audit.src.export import Export
from services.audit.src.verification import Verification

from ..callers import SECRET
from ..waiting import wait_until
from .conftest import KEY, SIGNER, exported

KILLS = int(os.environ.get("HEARTGUARD_KILLS", "4"))
ORGANIZATIONS = 3

EMITTERS = """
import os, sys, threading, time
from pathlib import Path
from heartguard import audit, logs
from heartguard.database import Database
from heartguard.errors import Unavailable

logs.configure("emitters", "ERROR")
trail = audit.Trail.open("auth", os.environ["REDIS_URL"], Path(os.environ["AUDIT_SPOOL"]))
database = Database(os.environ["DATABASE_URL"], service="auth")
acknowledged = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def event(number):
    return audit.make("LOGIN", str(number), service="auth", org_id=number % 3 + 1, payload={"n": number})

def send(number):
    made = event(number)
    trail.put(made)
    return made

def commit(number):
    made = event(number)
    with database.transaction(made.org_id) as tx:
        tx.exec_driver_sql(
            "INSERT INTO heartguard_core.audit_outbox (event) VALUES (%s)", (audit.encode(made).decode(),)
        )
    return made

def emit(how, number):
    while True:
        number += 1
        try:
            made = how(number)
        except Unavailable:
            time.sleep(0.01)
        else:
            os.write(acknowledged, made.event_id.encode() + b"\\n")
        time.sleep(0.001)

for how in (send, send, commit):
    threading.Thread(target=emit, args=(how, 0)).start()
"""


class Site:
    """Durable stores, the audit service as the product runs it, and the emitters."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.notes = folder / "acknowledged"
        secrets = private_folder(folder / "secrets")
        self.postgres = Postgres(folder / "postgres", secrets)
        self.valkey = Valkey(folder / "valkey", secrets)
        self._stores: dict[str, Running] = {store.name: Running(store) for store in (self.postgres, self.valkey)}
        passwords = {service: self.postgres.password(service) for service in ("auth", "audit")}
        migrate(self.postgres.url, passwords=passwords)
        self.environ = {
            "PATH": os.environ["PATH"],
            "JWT_SECRET": SECRET,
            "AUDIT_SIGNING_KEY": KEY,
            "REDIS_URL": self.valkey.url,
            "AUDIT_SPOOL": str(folder / "spool"),
        }
        self._programs: dict[str, subprocess.Popen[bytes]] = {}
        self._start_service()
        self._start_emitters()

    def kill(self, name: str) -> None:
        """As a crash would, and start it again."""
        if store := self._stores.get(name):
            kill(store.pid)
            store.kill()
            wait_until(lambda: self._restart(store.store), 30)
        else:
            kill(self._programs[name].pid)
            self._programs[name].wait(10)
            if name == "service":
                self._start_service()
            else:
                self._start_emitters()

    def stop_emitters(self) -> None:
        emitters = self._programs.pop("emitters")
        emitters.kill()
        emitters.wait(10)

    def stop(self) -> None:
        for program in self._programs.values():
            program.terminate()
            program.wait(20)
        for store in self._stores.values():
            store.stop()

    def acknowledged(self) -> set[str]:
        return {line for line in self.notes.read_text().split("\n") if len(line) == 36}

    def recorded(self) -> list[str]:
        with psycopg.connect(self.postgres.superuser_url) as connection:
            return [row[0] for row in connection.execute("SELECT event_id::text FROM heartguard_core.audit_events")]

    def put_aside(self) -> int:
        with psycopg.connect(self.postgres.superuser_url) as connection:
            found = connection.execute("SELECT count(*) FROM heartguard_core.audit_poison").fetchone()
            return int(found[0]) if found else 0

    def _start_service(self) -> None:
        command = [sys.executable, "-m", "heartguard.serve", "audit", "--port", str(self.port)]
        self._start("service", command, self.postgres.url_for("audit"))

    def _start_emitters(self) -> None:
        self._start("emitters", [sys.executable, "-c", EMITTERS, str(self.notes)], self.postgres.url_for("auth"))

    def _start(self, name: str, command: list[str], database_url: str) -> None:
        environ = {**self.environ, "DATABASE_URL": database_url}
        with (self.notes.parent / f"{name}.log").open("ab") as log:
            self._programs[name] = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log)

    def _restart(self, store: Store) -> bool:
        """As the supervisor does it: again, where a process of the killed server has not quite ended yet."""
        try:
            self._stores[store.name] = Running(store)
        except SetupError:
            return False
        return True


def kill(pid: int) -> None:
    """The process and its children: none gets to do anything more."""
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    for one in [*children, pid]:
        with suppress(ProcessLookupError):  # a worker of PostgreSQL's that has just ended
            os.kill(one, signal.SIGKILL)


@pytest.fixture
def site(stores_folder: Path, free_port: Callable[[], int]) -> Iterator[Site]:
    site = Site(private_folder(stores_folder / "audit-killed"), free_port())
    yield site
    site.stop()


def test_whatever_is_killed_no_event_is_missing_and_none_is_doubled(site: Site, tmp_path: Path) -> None:
    chance = random.Random(KILLS)
    wait_until(lambda: site.notes.exists() and len(site.acknowledged()) > 100, 30)
    victims = ["service", "valkey", "postgres", "emitters"]
    for number in range(KILLS):
        time.sleep(chance.uniform(0.1, 0.8))
        site.kill(victims[number] if number < len(victims) else chance.choice(victims))
    before = len(site.acknowledged())
    wait_until(lambda: len(site.acknowledged()) > before + 100, 30)
    site.stop_emitters()
    acknowledged = site.acknowledged()
    try:
        wait_until(lambda: acknowledged <= set(site.recorded()), 60)
    finally:
        missing = sorted(acknowledged - set(site.recorded()))
        print(f"{len(missing)} of {len(acknowledged)} missing: {missing[:5]}")
    wait_until(lambda: is_ready(SERVICES["audit"], site.port), 30)
    recorded = site.recorded()
    assert len(recorded) == len(set(recorded)), "doubled"
    assert site.put_aside() == 0
    print(f"{KILLS} kills, {len(acknowledged)} acknowledged, {len(recorded)} recorded")
    check_chains(site, tmp_path)


def check_chains(site: Site, tmp_path: Path) -> None:
    database = Database(site.postgres.url_for("audit"), service="tests")
    key = tmp_path / "key"
    key.write_text(SIGNER.public_key.hex())
    for org_id in range(1, ORGANIZATIONS + 1):
        assert Verification(database, SIGNER).verify(org_id).valid
        file = tmp_path / f"{org_id}.ndjson"
        file.write_bytes(b"".join(exported(Export(database, SIGNER), org_id)))
        assert verify.run([file], [key]) == verify.WHOLE
    database.close()
