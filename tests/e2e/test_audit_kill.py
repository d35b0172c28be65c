"""``kill -9`` in the middle of it all, on the whole stack: of every change that a client was told of, the audit trail
has the gateway's intent and outcome and the service's own event, and none twice.

Clients change things through the gateway while the gateway, the audit service, Valkey and PostgreSQL are killed; the
supervisor starts them again. ``HEARTGUARD_EVENTS=100000 HEARTGUARD_KILLS=200`` asks that often, and kills that often.
"""

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
import urllib3
from typer.testing import CliRunner

from heartguard.audit import outcome_id, unknown_id, verify
from heartguard.cli.main import app
from heartguard.local.postgres import Postgres
from heartguard.local.server import wait_until
from heartguard.local.stack import Stack

from ..integration.killing import kill

REQUESTS = int(os.environ.get("HEARTGUARD_EVENTS", "400"))
KILLS = int(os.environ.get("HEARTGUARD_KILLS", "6"))
CLIENTS = 6
VICTIMS = ("gateway", "audit", "valkey", "postgres")
UNKNOWN_AFTER = 60.0
"""Seconds after which an intent without an outcome is reported."""

POINT = {"measurement": "heart_rate", "fields": {"bpm": 72}}
UPLOAD = {"file_name": "a.csv", "content_type": "text/csv", "data_base64": "YSxiCg=="}
CHANGES: list[tuple[str, str, dict[str, Any], str]] = [
    ("PUT", "/users/me", {"preferences": {"lang": "es"}}, "USER_UPDATE"),
    ("POST", "/timeseries/write", {"points": [POINT]}, "TIMESERIES_WRITE"),
    ("PUT", "/organization", {"policies": "ISO27001"}, "ORGANIZATION_UPDATE"),
    ("POST", "/timeseries/write", {"points": [POINT, POINT]}, "TIMESERIES_WRITE"),
    ("POST", "/media/upload", UPLOAD, "MEDIA_UPLOAD"),
]
"""Their events go through the outbox."""


@dataclass
class Clients:
    """They change things, and note by its id what became of each request: its status, or None without an answer."""

    stack: Stack
    token: str
    told: dict[str, tuple[int | None, str]] = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)

    def run(self, number: int) -> None:
        with urllib3.PoolManager(timeout=20, retries=False) as http:
            for n in count():
                if self.done.is_set():
                    return
                request_id = f"kill-{number}-{n}"
                method, path, body, action = CHANGES[n % len(CHANGES)]
                status = self._ask(http, method, path, body, request_id)
                self.told[request_id] = status, action
                if status is None or status >= 500:
                    time.sleep(0.05)

    def _ask(self, http: urllib3.PoolManager, method: str, path: str, body: Any, request_id: str) -> int | None:
        headers = {"Authorization": f"Bearer {self.token}", "X-Request-ID": request_id}
        try:
            return http.request(method, self.stack.gateway + path, json=body, headers=headers).status
        except urllib3.exceptions.HTTPError:  # killed in the middle of it
            return None

    def acknowledged(self) -> int:
        return sum(status is not None and status < 300 for status, _ in list(self.told.values()))


def sign_in(stack: Stack) -> str:
    body = {"email": "boss@hg.io", "password": "correct horse battery staple"}
    answer = urllib3.request("POST", f"{stack.gateway}/auth/login", json=body, timeout=20, retries=False)
    return str(answer.json()["access_token"])


@pytest.fixture(scope="module")
def stack(stack_settings: dict[str, str]) -> Stack:
    with pytest.MonkeyPatch.context() as patch:
        for limit in ("RATE_LIMIT", "AUTH_RATE_LIMIT"):
            patch.setenv(limit, "1000000/s")
        started = CliRunner().invoke(app, ["up"], prog_name="heartguard")
    assert started.exit_code == 0, started.output
    return Stack()


@pytest.fixture
def clients(stack: Stack) -> Iterator[Clients]:
    clients = Clients(stack, sign_in(stack))
    with ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(clients.run, number) for number in range(CLIENTS)]
        try:
            yield clients
        finally:
            clients.done.set()
    for one in running:
        one.result()


def kill_at_random(clients: Clients) -> None:
    """Spread over the requests; each victim once before any comes again."""
    chance = random.Random(KILLS)
    for number in range(KILLS):
        due = (number + chance.random()) * REQUESTS / KILLS
        wait_until(lambda due=due: clients.acknowledged() >= due, "The load does not go on", 120)
        victim = VICTIMS[number] if number < len(VICTIMS) else chance.choice(VICTIMS)
        wait_until(lambda victim=victim: _pid(clients.stack, victim) > 0, f"{victim} was not restarted", 60)
        kill(_pid(clients.stack, victim))
    wait_until(lambda: clients.acknowledged() >= REQUESTS, "The load does not go on", 120)


def _pid(stack: Stack, name: str) -> int:
    state = stack.supervisor.states()[name]
    return state.pid if state.running else 0


def test_whatever_is_killed_every_change_is_recorded_and_none_twice(
    stack: Stack, clients: Clients, tmp_path: Path
) -> None:
    begun = time.monotonic()
    kill_at_random(clients)
    clients.done.set()
    seconds = time.monotonic() - begun
    wait_until(lambda: all(row.well for row in stack.status()), "Not everything was ready again", 120)
    token = sign_in(stack)
    wait_until(lambda: pending(stack, token) == 0, "Events wait still", UNKNOWN_AFTER + 120)
    told = dict(clients.told)
    events = exported(stack, token, tmp_path)
    statuses = Counter(status for status, _ in told.values())
    print(f"{KILLS} kills, {len(told)} requests in {seconds:.0f} s: {dict(statuses)}; {len(events)} events")
    check_ids(events)
    check_requests(told, events)
    check_intents(events)
    assert statuses[None] + statuses[502] + statuses[503], "nobody noticed"


def pending(stack: Stack, token: str) -> int:
    """What is on its way into the trail: in the spools, the stream, the outbox; and intents yet to be reported."""
    with psycopg.connect(Postgres(stack.layout.root / "postgres", stack.layout.secrets).superuser_url) as connection:
        found = connection.execute(
            "SELECT (SELECT count(*) FROM heartguard_core.audit_outbox)"
            " + (SELECT count(*) FROM heartguard_core.audit_intents)"
        ).fetchone()
        poison = connection.execute("SELECT source, reason FROM heartguard_core.audit_poison").fetchall()
    assert poison == []
    assert found is not None
    spools = sum(file.stat().st_size for file in stack.layout.spool.glob("*.s*"))
    return int(found[0]) + spools + depth(stack, token)


def depth(stack: Stack, token: str) -> int:
    """Of the stream, as the audit service's metrics say."""
    answer = ask(stack, "/audit/metrics", token)
    name = 'heartguard_audit_queue_depth{source="stream"} '
    (line,) = [line for line in answer.data.decode().splitlines() if line.startswith(name)]
    return int(float(line.removeprefix(name)))


def ask(stack: Stack, path: str, token: str) -> urllib3.BaseHTTPResponse:
    headers = {"Authorization": f"Bearer {token}"}
    return urllib3.request("GET", stack.gateway + path, headers=headers, timeout=300, retries=False)


def exported(stack: Stack, token: str, folder: Path) -> list[dict[str, Any]]:
    """The organization's chain, after the offline verifier has found it whole."""
    file, key = folder / "audit.ndjson", folder / "audit.pub"
    answer = ask(stack, "/audit/export", token)
    assert answer.status == 200
    file.write_bytes(answer.data)
    shown = CliRunner().invoke(app, ["audit", "key"], env={"AUDIT_SIGNING_KEY_FILE": str(stack.layout.audit_key)})
    key.write_text(shown.stdout)
    assert verify.run([file], [key]) == verify.WHOLE
    return [line["event"] for line in map(json.loads, answer.data.splitlines()) if "event" in line]


def check_ids(events: list[dict[str, Any]]) -> None:
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert len({event["event_id"] for event in events}) == len(events), "doubled"


def check_requests(told: dict[str, tuple[int | None, str]], events: list[dict[str, Any]]) -> None:
    """What each client was told is what the trail has; what no client was told is there once, or not at all."""
    seen = Counter((event["request_id"], event["action"], event["outcome"]) for event in events)
    wrong: list[object] = []
    for request_id, (status, action) in told.items():
        intents, successes, failures, own = (
            seen[request_id, *what]
            for what in (("REQUEST", "intent"), ("REQUEST", "success"), ("REQUEST", "failure"), (action, "success"))
        )
        if status is not None and status < 300:
            right = (intents, successes, failures, own) == (1, 1, 0, 1)
        else:
            right = intents <= 1 and successes + failures <= intents and own <= intents
        if not right:
            wrong.append((request_id, status, action, intents, successes, failures, own))
    assert not wrong, (len(wrong), wrong[:5])


def check_intents(events: list[dict[str, Any]]) -> None:
    """Each has its outcome, or is listed as one of which nobody knows what came of it."""
    ids = {event["event_id"] for event in events}
    intents = [event["event_id"] for event in events if event["outcome"] == "intent"]
    unknown = [intent for intent in intents if unknown_id(intent) in ids]
    assert all(outcome_id(intent) in ids or unknown_id(intent) in ids for intent in intents)
    print(f"{len(intents)} intents, {len(unknown)} reported as unknown")
