"""From a service to the chain: by the stream, by the outbox, by the spool."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from flask import Flask
from redis import Redis
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from heartguard import audit
from heartguard.app import create_service_app
from heartguard.audit.spool import Spool
from heartguard.audit.stream import FIELD, GROUP, STREAM, Stream, StreamFull, append_command, was_appended
from heartguard.database import Database
from heartguard.endpoints import Endpoints
from heartguard.errors import Unavailable
from heartguard.policy import Audience
from heartguard.resp import Connection
from heartguard.settings import ROOT, ServiceSettings, load
from heartguard.tokens import Claims
from heartguard.valkey import FastValkey
from services.audit.src.intake import REST, OutboxReader
from services.audit.src.recorder import INTENT, Recorder
from services.audit.src.timing import Timing

from ..callers import SECRET, TOKENS
from .conftest import Caller

AWAY = "redis://127.0.0.1:1/0"
Eventually = Callable[..., None]


def numbers(admin: Caller) -> list[int]:
    return [event["payload"]["n"] for event in admin.events()]


# The stream


def test_events_are_recorded_once_and_in_order(admin: Caller, trail: audit.Trail, eventually: Eventually) -> None:
    events = [admin.event(payload={"n": n}) for n in range(250)]
    trail.put(*events[:100])
    for event in events[100:]:
        trail.put(event)
    trail.put(*events[::-1])
    eventually(lambda: len(admin.events()) == 250)
    trail.put(*events)
    trail.put(admin.event("LAST", payload={"n": 250}))
    eventually(lambda: len(admin.events()) == 251)
    assert numbers(admin) == list(range(251))
    assert admin.verification()["valid"]


def test_events_that_come_one_by_one_are_recorded_together(
    admin: Caller, trail: audit.Trail, eventually: Eventually
) -> None:
    begun = time.monotonic()
    for n in range(40):
        trail.put(admin.event(payload={"n": n}))
        time.sleep(0.01)
    eventually(lambda: len(admin.events()) == 40)
    transactions = {event["recorded_at"] for event in admin.events()}
    assert len(transactions) <= (time.monotonic() - begun) / REST + 2


def test_what_is_recorded_leaves_the_stream(
    admin: Caller, trail: audit.Trail, valkey: Redis, eventually: Eventually
) -> None:
    trail.put(admin.event())
    eventually(lambda: valkey.xlen(STREAM) == 0 and valkey.xpending(STREAM, GROUP)["pending"] == 0)
    assert len(admin.events()) == 1


def test_what_a_dead_consumer_left_is_taken_over(
    admin: Caller, run_service: Callable[..., Any], valkey: Redis, eventually: Eventually
) -> None:
    eventually(lambda: valkey.exists(STREAM))
    with valkey.pipeline(transaction=True) as at_once:  # nobody reads it in between
        at_once.xadd(STREAM, {FIELD: audit.encode(admin.event(payload={"n": 7}))})
        at_once.xreadgroup(GROUP, "dead", {STREAM: ">"})
        at_once.execute()
    with run_service(timing=Timing(abandoned_ms=10)):
        eventually(lambda: numbers(admin) == [7])


def test_a_stream_that_was_wiped_is_begun_anew(
    admin: Caller, trail: audit.Trail, valkey: Redis, eventually: Eventually
) -> None:
    valkey.delete(STREAM)
    trail.put(admin.event(payload={"n": 1}))
    eventually(lambda: numbers(admin) == [1])


def test_what_is_no_event_is_put_aside(
    admin: Caller, trail: audit.Trail, valkey: Redis, superuser: Any, eventually: Eventually
) -> None:
    good = audit.encode(admin.event(payload={"n": 1}))
    bad = [
        b"", b"no JSON", b"{}", b"[" * 100_000, good.replace(b'"LOGIN"', b'"login"'), b"\xff" + good,
        good.replace(b'"org_id":', b'"org_id":-'), good.replace(b'"success"', b'"good"'),
        good.replace(b"T", b"X", 1) if b"T" in good else b"x",
        good.replace(b'"occurred_at":"2', b'"occurred_at":"0'), good[:-1] + b',"surplus":1}',
    ]  # fmt: skip
    before = kept(superuser)
    for raw in bad:
        valkey.xadd(STREAM, {FIELD: raw})
    valkey.xadd(STREAM, {b"other": b"field"})
    trail.put(admin.event(payload={"n": 2}))
    eventually(lambda: 2 in numbers(admin))
    eventually(lambda: kept(superuser) - before >= len(bad) - 1)
    assert "heartguard_audit_poison_total" in admin.send("GET", "/audit/metrics").text
    eventually(lambda: valkey.xlen(STREAM) == 0)


def kept(superuser: Any) -> int:
    with superuser.transaction() as tx:
        return int(tx.execute(text("SELECT count(*) FROM heartguard_core.audit_poison")).scalar_one())


def test_one_that_the_database_refuses_does_not_hold_up_the_others(
    admin: Caller, recorder: Recorder, database: Database
) -> None:
    """No event should be so; one with a zero byte past every check is what PostgreSQL cannot store."""
    events = [admin.event(payload={"n": n}) for n in range(2)]
    fields = {name: getattr(events[0], name) for name in events[0].__struct_fields__}
    hostile = audit.Event(**{**fields, "event_id": audit.new_event_id(), "actor": "a\0b"})
    with database.transaction() as tx:
        poison = recorder._append_all(tx, [events[0], hostile, events[1]], "stream")
    assert [one.source for one in poison] == ["stream"]
    assert numbers(admin) == [0, 1]
    assert admin.verification()["valid"]


def test_the_gateway_can_send_by_a_connection_of_its_own(
    admin: Caller, valkey_url: str, valkey: Redis, eventually: Eventually
) -> None:
    valkey.script_flush()
    connection = Connection(valkey_url)
    answers = []
    for whole in (False, True, False):
        command = append_command([audit.encode(admin.event(payload={"n": 1}))], whole_script=whole)
        connection._socket.sendall(command)
        while (answer := connection._reader.gets()) is False:
            connection._reader.feed(connection._socket.recv(4096))
        answers.append(was_appended(answer))
    connection.close()
    assert answers == [False, True, True], "Valkey does not know the script before it was sent as a whole"
    eventually(lambda: numbers(admin) == [1, 1])


# The spool


@pytest.fixture
def away(tmp_path: Path) -> Iterator[audit.Trail]:
    """A trail whose Valkey is away."""
    trail = audit.Trail("auth", Stream(FastValkey(AWAY)), Spool(tmp_path, "auth"))
    trail.start()
    yield trail
    trail.stop()


def adopter(folder: Path, url: str) -> audit.Trail:
    return audit.Trail("other", Stream(FastValkey(url)), Spool(folder, "other"))


def test_without_valkey_events_wait_in_the_spool(
    admin: Caller, away: audit.Trail, tmp_path: Path, valkey_url: str, eventually: Eventually
) -> None:
    for n in range(20):
        away.put(admin.event(payload={"n": n}))
    other = adopter(tmp_path, valkey_url)
    other.drain()
    assert admin.events() == [], "whose owner lives is left alone"
    away._spool.close()
    other.drain()
    eventually(lambda: numbers(admin) == list(range(20)))
    assert list(tmp_path.iterdir()) == []
    other._stream.close()


def test_a_full_stream_is_as_good_as_none(admin: Caller, valkey_url: str, valkey: Redis, tmp_path: Path) -> None:
    stream = Stream(FastValkey(valkey_url), bound=0)
    with pytest.raises(StreamFull):
        stream.append([b"x"])
    spool = Spool(tmp_path, "auth")
    audit.Trail("auth", stream, spool).put(admin.event())
    assert spool.size > 0
    spool.close()
    stream.close()


def test_a_full_spool_refuses(admin: Caller, tmp_path: Path) -> None:
    spool = Spool(tmp_path, "auth", limit=1000)
    trail = audit.Trail("auth", Stream(FastValkey(AWAY)), spool)
    room = 1000 // (len(audit.encode(admin.event())) + 10)
    for _ in range(room):
        trail.put(admin.event())
    with pytest.raises(Unavailable):
        trail.put(admin.event())
    assert spool.drain(lambda _: None) == room
    trail.put(admin.event())
    spool.close()


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_done(tmp_path: Path, admin: Caller) -> None:
    (tmp_path / "file").write_text("")
    trail = audit.Trail("auth", Stream(FastValkey(AWAY)), Spool(tmp_path / "file", "auth"))
    with pytest.raises(Unavailable):
        trail.put(admin.event())
    with pytest.raises(Unavailable):
        trail.check()


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "auth")
    spool.append([b"one", b"two"])
    (file,) = tmp_path.iterdir()
    spool.close()
    whole = file.read_bytes()
    sent: list[bytes] = []
    for cut in range(len(whole) + 1):
        file.write_bytes(whole[:cut])
        Spool(tmp_path, "other").drain(lambda batch: sent.extend(batch))
    line = len(whole) // 2
    assert sent == [b"one"] * (line + 1) + [b"two"]
    file.write_bytes(whole.replace(b"one", b"0ne"))
    sent.clear()
    Spool(tmp_path, "other").drain(lambda batch: sent.extend(batch))
    assert sent == [b"two"]


def test_what_could_not_be_sent_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "auth")
    spool.append([b"%d" % n for n in range(500)])
    sent: list[bytes] = []

    def send(batch: Any) -> None:
        if len(sent) >= 200:
            raise Unavailable
        sent.extend(batch)

    with pytest.raises(Unavailable):
        spool.drain(send)
    spool.append([b"later"])
    sent.clear()
    spool.drain(lambda batch: sent.extend(batch))
    assert sent == [b"%d" % n for n in range(500)] + [b"later"]
    assert (spool.size, list(tmp_path.iterdir())) == (0, [])


WRITER = """
import sys
from pathlib import Path
from heartguard.audit.spool import Spool

spool = Spool(Path(sys.argv[1]), "auth")
for number in range(10**9):
    spool.append([b"%d" % number])
    print(number, flush=True)
"""


def test_what_a_valkey_took_that_is_no_more_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heartguard.audit.spool.KEPT_FOR", -1.0)
    spool = Spool(tmp_path, "auth")
    spool.keep([b"one"], b"first")
    spool.keep([b"two"], b"second")
    sent: list[bytes] = []
    spool.release(b"second")
    spool.drain(lambda batch: sent.extend(batch))
    assert (sent, list(tmp_path.iterdir())) == ([b"one"], [])


def test_what_was_just_sent_is_kept_even_for_others(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "auth")
    spool.keep([b"one"], b"first")
    spool.release(b"first")
    sent: list[bytes] = []
    assert (spool.drain(lambda batch: sent.extend(batch)), spool.size) == (0, 0)
    spool.close()
    Spool(tmp_path, "other").drain(lambda batch: sent.extend(batch))
    assert sent == [b"one"]


def test_a_disk_that_keeps_nothing_of_what_was_sent_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    Spool(tmp_path / "file", "auth").keep([b"one"], b"first")
    full = Spool(tmp_path, "auth", limit=0)
    full.keep([b"one"], b"first")
    full.keep([b"two"], b"second")
    full.close()


@pytest.mark.parametrize("_time", range(3))
def test_what_was_acknowledged_survives_kill_9_and_is_adopted_once(tmp_path: Path, _time: int) -> None:
    sent: list[bytes] = []
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout
        acknowledged = [int(writer.stdout.readline()) for _ in range(40)]
        spools = [Spool(tmp_path, "a"), Spool(tmp_path, "b")]
        assert spools[0].drain(lambda batch: sent.extend(batch)) == 0, "its owner lives"
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += map(int, writer.stdout.read().split())
        writer.wait()
    for spool in spools:
        spool.drain(lambda batch: sent.extend(batch))
    assert list(map(int, sent))[: len(acknowledged)] == acknowledged
    assert len(sent) <= len(acknowledged) + 1
    assert not list(tmp_path.glob("*.spool"))


def test_threads_share_their_syncs_and_lose_nothing(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    spool = Spool(tmp_path, "auth")
    sent: list[bytes] = []
    with ThreadPoolExecutor(8) as pool:
        tasks = [pool.submit(spool.append, [b"%d" % n]) for n in range(400)]
        while not all(task.done() for task in tasks):
            spool.drain(lambda batch: sent.extend(batch))
        for task in tasks:
            task.result()
    spool.drain(lambda batch: sent.extend(batch))
    assert sorted(map(int, sent)) == list(range(400))


# The outbox


@pytest.fixture
def service(url_for: Callable[[str], str], trail: audit.Trail) -> Iterator[tuple[Flask, Database]]:
    """A service that changes something in PostgreSQL and records it in the same transaction."""
    database = Database(url_for("user"), service="tests")
    endpoints = Endpoints("user")

    @endpoints.post("/users/change", audience=Audience.SIGNED_IN, audit="USER_UPDATE")
    def change(caller: Claims) -> None:
        with database.transaction(caller.org_id) as tx:
            audit.record(tx, fields="first_name", password="canary")
        if caller.user_id == 13:
            with database.transaction(caller.org_id) as tx:
                audit.record(tx, "ROLE_CHANGE")
                raise Unavailable

    settings = load(ServiceSettings, {"JWT_SECRET": SECRET})
    yield create_service_app(endpoints, settings, TOKENS, trail=trail), database
    database.close()


def test_a_change_and_its_event_are_committed_together(
    admin: Caller, service: tuple[Flask, Database], eventually: Eventually
) -> None:
    caller = Caller(service[0], admin.org_id, "user", 7)
    assert caller.send("POST", "/users/change", headers={"X-Request-ID": "r-7"}).status_code == 204
    assert Caller(service[0], admin.org_id, "user", 13).send("POST", "/users/change").status_code == 503
    eventually(lambda: len(admin.events()) == 2)
    event, other = admin.events()
    assert {name: event[name] for name in ("actor", "action", "service", "outcome", "request_id", "payload")} == {
        "actor": "7",
        "action": "USER_UPDATE",
        "service": "user",
        "outcome": "success",
        "request_id": "r-7",
        "payload": {"fields": "first_name", "password": "***"},
    }
    assert (other["actor"], other["action"]) == ("13", "USER_UPDATE"), "what was rolled back left no event"


def test_outside_of_a_request_the_action_is_to_be_named(
    admin: Caller, service: tuple[Flask, Database], eventually: Eventually
) -> None:
    with service[1].transaction(admin.org_id) as tx:
        audit.record(tx, points=3)
        audit.record(tx, "REGISTER", service="user", org_id=admin.org_id)
    eventually(lambda: len(admin.events()) == 1)
    assert (admin.events()[0]["actor"], admin.events()[0]["service"]) == ("service:user", "user")


def test_whose_an_event_is_is_not_for_it_to_say(
    admin: Caller, service: tuple[Flask, Database], eventually: Eventually
) -> None:
    """A service that somebody has taken over would like to write into another's chain, under another's name."""
    other = admin.org_id + 1_000_000
    with service[1].transaction(admin.org_id) as tx:
        audit.record(tx, "LOGIN", service="auth", org_id=other)
    eventually(lambda: len(admin.events()) == 1)
    assert (admin.events()[0]["action"], admin.events()[0]["service"]) == ("LOGIN", "user")
    assert Caller(admin.app, other).events() == []
    for org_id in (None, 0):
        with pytest.raises(ProgrammingError, match="row-level security"), service[1].transaction(org_id) as tx:
            audit.record(tx, "LOGIN", service="user", org_id=admin.org_id)


def test_what_was_in_the_outbox_before_it_knew_organizations_is_believed(
    admin: Caller, superuser: Any, eventually: Eventually
) -> None:
    event = audit.encode(admin.event(service="organization")).decode()
    with superuser.transaction() as tx:
        tx.execute(
            text("INSERT INTO heartguard_core.audit_outbox (event, service) VALUES (:event, NULL)"), {"event": event}
        )
    eventually(lambda: [event["service"] for event in admin.events()] == ["organization"])


def test_what_is_put_aside_is_seen_by_its_organization_only(
    admin: Caller, service: tuple[Flask, Database], database_url: str, superuser: Any, eventually: Eventually
) -> None:
    before = kept(superuser)
    with service[1].transaction(admin.org_id) as tx:
        tx.exec_driver_sql("INSERT INTO heartguard_core.audit_outbox (event) VALUES ('no event')")
    eventually(lambda: kept(superuser) > before)
    with psycopg.connect(database_url) as owner:
        for org_id, seen in ((None, 0), (admin.org_id, 1), (admin.org_id + 1_000_000, 0)):
            if org_id is not None:
                owner.execute("SELECT set_config('heartguard.org_id', %s, true)", [str(org_id)])
            assert owner.execute("SELECT count(*) FROM heartguard_core.audit_poison").fetchone() == (seen,)


def test_one_process_drains_the_outbox_at_a_time(database: Database, recorder: Recorder, superuser: Any) -> None:
    with superuser.transaction() as tx:
        tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": 0x4F7574})
        assert OutboxReader(database, recorder).work() > 0


# Intents


def intended(admin: Caller) -> tuple[audit.Event, audit.Event]:
    intent = admin.event("REQUEST", outcome="intent", payload={"route": "/x"})
    outcome = admin.event(
        "REQUEST", event_id=audit.outcome_id(intent.event_id), payload={INTENT: intent.event_id, "status": 200}
    )
    return intent, outcome


def open_intents(superuser: Any, org_id: int) -> int:
    with superuser.transaction() as tx:
        found = tx.execute(
            text("SELECT count(*) FROM heartguard_core.audit_intents WHERE org_id = :org"), {"org": org_id}
        )
        return int(found.scalar_one())


@pytest.mark.parametrize("order", ["together", "apart", "reversed", "reversed, together"])
def test_an_intent_with_an_outcome_is_closed(
    admin: Caller, recorder: Recorder, database: Database, superuser: Any, order: str
) -> None:
    events = list(intended(admin))
    if "reversed" in order:
        events.reverse()
    for batch in [events] if "together" in order else [[event] for event in events]:
        with database.transaction() as tx:
            recorder.append(tx, batch)
    assert open_intents(superuser, admin.org_id) == 0


def test_an_intent_without_an_outcome_is_reported_once_and_a_late_outcome_still_recorded(
    admin: Caller, trail: audit.Trail, run_service: Callable[..., Any], eventually: Eventually, superuser: Any
) -> None:
    intent, outcome = intended(admin)
    trail.put(intent)
    eventually(lambda: open_intents(superuser, admin.org_id) == 1)
    timing = Timing(intent_seconds=0.2)
    with run_service(timing=timing), run_service(timing=timing):
        eventually(lambda: admin.events("?outcome=unknown"))
    (unknown,) = admin.events("?outcome=unknown")
    assert unknown["id"] == audit.unknown_id(intent.event_id)
    assert unknown["payload"] == {INTENT: intent.event_id, "route": "/x"}
    trail.put(outcome, intent)
    eventually(lambda: len(admin.events()) == 3)
    assert {event["outcome"] for event in admin.events()} == {"intent", "unknown", "success"}
    assert open_intents(superuser, admin.org_id) == 0


def test_organizations_with_the_same_ids_do_not_meet(
    admin: Caller, recorder: Recorder, database: Database, superuser: Any
) -> None:
    other = Caller(admin.app, admin.org_id + 1_000_000)
    intent, outcome = intended(admin)
    others = msgspec.structs.replace(intent, org_id=other.org_id)
    for events in ([others, intent], [outcome]):
        with database.transaction() as tx:
            assert recorder.append(tx, events) == len(events)
    assert [open_intents(superuser, caller.org_id) for caller in (admin, other)] == [0, 1]


def test_nobody_closes_the_intent_of_another(
    admin: Caller, recorder: Recorder, database: Database, superuser: Any
) -> None:
    intent, _ = intended(admin)
    with database.transaction() as tx:
        recorder.append(tx, [intent, admin.event("REQUEST", payload={INTENT: intent.event_id})])
    assert open_intents(superuser, admin.org_id) == 1


# What the service says of itself


def test_readiness_and_metrics_tell_of_a_backlog(
    admin: Caller, run_service: Callable[..., Any], superuser: Any, eventually: Eventually
) -> None:
    with superuser.transaction() as holder:
        holder.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": 0x4F7574})
        with superuser.transaction() as tx:
            tx.execute(
                text(
                    "INSERT INTO heartguard_core.audit_outbox (event, put_at)"
                    " VALUES (:event, now() - interval '1 hour')"
                ),
                {"event": audit.encode(admin.event(payload={"n": 1})).decode()},
            )
        with run_service() as app:
            other = Caller(app, admin.org_id)
            eventually(lambda: other.send("GET", "/audit/ready").json["status"] == "degraded")
            told = other.send("GET", "/audit/metrics").text
            assert 'heartguard_audit_queue_depth{source="outbox"} 1.0' in told
            assert 'heartguard_audit_lag_seconds{source="outbox"} 36' in told
    eventually(lambda: numbers(admin) == [1])
    eventually(lambda: admin.send("GET", "/audit/ready").json["status"] == "ready")


def test_without_valkey_the_service_is_degraded_and_the_outbox_goes_on(
    admin: Caller, run_service: Callable[..., Any], service: tuple[Flask, Database], eventually: Eventually
) -> None:
    with run_service(REDIS_URL=AWAY) as app:
        assert Caller(app, 1).send("GET", "/audit/ready").json["status"] == "degraded"
        Caller(service[0], admin.org_id, "user").send("POST", "/users/change")
        eventually(lambda: len(admin.events()) == 1)


def test_chains_are_signed_as_time_passes(
    admin: Caller, fill: Callable[..., None], run_service: Callable[..., Any], superuser: Any, eventually: Eventually
) -> None:
    fill(admin, 5)
    with run_service(timing=Timing(sign_seconds=0)):
        eventually(lambda: checkpoints(superuser, admin.org_id) == [5])
    assert admin.verification()["valid"]


def checkpoints(superuser: Any, org_id: int) -> list[int]:
    with superuser.transaction() as tx:
        found = tx.execute(
            text("SELECT sequence FROM heartguard_core.audit_checkpoints WHERE org_id = :org"), {"org": org_id}
        )
        return list(found.scalars())
