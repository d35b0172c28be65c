"""The chain: whatever is done to it behind the service's back is found, here and offline."""

import json
import os
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from heartguard.audit import verify as verifier
from heartguard.audit.chain import START, next_hash
from heartguard.database import Database
from heartguard.errors import Unavailable
from services.audit.src import db_read
from services.audit.src.export import Export
from services.audit.src.recorder import Recorder
from services.audit.src.signing import Signer
from services.audit.src.verification import Verification, canonical_of

from .conftest import SIGNER, Caller, exported

MUTATIONS = int(os.environ.get("HEARTGUARD_MUTATIONS", "500"))
Fill = Callable[..., None]


@pytest.fixture
def tamper(superuser: Any, admin: Caller) -> Callable[..., None]:
    """Runs a statement past every right, policy and trigger, as somebody who owns the machine could."""

    def run(statement: str, **values: Any) -> None:
        with superuser.transaction() as tx:
            tx.execute(text("SET LOCAL session_replication_role = replica"))
            done = tx.execute(text(statement), {"org": admin.org_id, **values})
            assert done.rowcount

    return run


def test_a_chain_that_nobody_touched(admin: Caller, fill: Fill, check_offline: Callable[..., int]) -> None:
    fill(admin, 1234)
    found = admin.verification()
    last = admin.page("?limit=1")["items"][0]
    assert found == {
        "valid": True, "events": 1234, "first_sequence": 1, "last_sequence": 1234, "head_hash": last["hash"],
    }  # fmt: skip
    assert check_offline(admin.export()) == verifier.WHOLE


def test_an_empty_chain(admin: Caller, check_offline: Callable[..., int]) -> None:
    assert admin.verification() == {
        "valid": True, "events": 0, "first_sequence": 0, "last_sequence": 0, "head_hash": "0" * 64,
    }  # fmt: skip
    assert check_offline(admin.export()) == verifier.WHOLE


EVENTS = "heartguard_core.audit_events WHERE org_id = :org"


@pytest.mark.parametrize(
    ("statement", "first_bad"),
    [
        (f"UPDATE heartguard_core.audit_events SET {column} = {value} WHERE org_id = :org AND sequence = 700", 700)
        for column, value in (
            ("actor", "'2'"), ("action", "'LOGOUT'"), ("outcome", "'denied'"), ("service", "'user'"),
            ("payload", "'{}'"), ("occurred_at", "occurred_at + interval '1 microsecond'"),
            ("recorded_at", "recorded_at - interval '1 microsecond'"), ("request_id", "'r'"),
            ("event_id", "gen_random_uuid()"), ("hash", "sha256('x')"),
        )
    ]
    + [
        (f"DELETE FROM {EVENTS} AND sequence = 700", 700),
        (f"DELETE FROM {EVENTS} AND sequence = 1", 1),
        (f"DELETE FROM {EVENTS} AND sequence > 1100", 1101),
        (
            "UPDATE heartguard_core.audit_events e SET payload = o.payload, event_id = o.event_id, hash = o.hash"
            " FROM heartguard_core.audit_events o WHERE e.org_id = :org AND o.org_id = :org"
            " AND e.sequence IN (700, 701) AND e.sequence + o.sequence = 1401",
            700,
        ),
        ("UPDATE heartguard_core.audit_chains SET hash = sha256('x') WHERE org_id = :org", 1200),
        ("UPDATE heartguard_core.audit_chains SET sequence = 1201 WHERE org_id = :org", 1201),
        ("UPDATE heartguard_core.audit_checkpoints SET hash = sha256('x') WHERE org_id = :org", 1000),
        ("UPDATE heartguard_core.audit_checkpoints SET signature = sha512('x') WHERE org_id = :org", 1000),
    ],
)  # fmt: skip
def test_what_was_altered_in_the_database_is_found(
    admin: Caller, fill: Fill, tamper: Callable[..., None], statement: str, first_bad: int
) -> None:
    fill(admin, 500)
    fill(admin, 500)
    fill(admin, 200)
    assert admin.verification()["valid"]
    tamper(statement)
    found = admin.verification()
    assert (found["valid"], found["first_bad_sequence"]) == (False, first_bad)


def test_an_end_that_was_cut_off_and_covered_up_is_found_by_its_checkpoint(
    admin: Caller, fill: Fill, tamper: Callable[..., None], recorder: Recorder, database: Database
) -> None:
    fill(admin, 20)
    with database.transaction() as tx:
        recorder.sign(tx, admin.org_id)
    tamper(f"DELETE FROM {EVENTS} AND sequence > 15")
    tamper(
        "UPDATE heartguard_core.audit_chains c SET sequence = 15, hash = e.hash FROM heartguard_core.audit_events e"
        " WHERE c.org_id = :org AND e.org_id = :org AND e.sequence = 15"
    )
    found = admin.verification()
    assert (found["valid"], found["first_bad_sequence"]) == (False, 16)


CHECKPOINTS = "heartguard_core.audit_checkpoints"


@pytest.mark.parametrize("denied", [False, True], ids=["said to be signed", "not even that"])
@pytest.mark.parametrize(
    ("count", "event", "covered_up"),
    [
        (20, 5, f"UPDATE {CHECKPOINTS} SET key_id = repeat('0', 16) WHERE org_id = :org"),
        (20, 5, f"DELETE FROM {CHECKPOINTS} WHERE org_id = :org"),
        (3500, 5, f"DELETE FROM {CHECKPOINTS} WHERE org_id = :org"),
        (3500, 2005, f"DELETE FROM {CHECKPOINTS} WHERE org_id = :org AND sequence > 2000"),
    ],
)
def test_a_chain_that_was_computed_anew_is_found(
    admin: Caller, fill: Fill, tamper: Callable[..., None], superuser: Any, recorder: Recorder, database: Database,
    check_offline: Callable[..., int], count: int, event: int, covered_up: str, denied: bool,
) -> None:  # fmt: skip
    """As a superuser could do it, who has no key."""
    fill(admin, count)
    with database.transaction() as tx:
        recorder.sign(tx, admin.org_id)
    assert admin.verification()["valid"]
    assert check_offline(admin.export()) == verifier.WHOLE
    compute_anew(superuser, admin.org_id, event)
    tamper(covered_up)
    if denied:
        tamper(
            "UPDATE heartguard_core.audit_chains SET signed = coalesce((SELECT max(sequence)"
            f" FROM {CHECKPOINTS} WHERE org_id = :org), 0) WHERE org_id = :org"
        )
    # So short a chain may be unsigned: there the checkpoint in the log tells.
    expected = denied and count == 20 and "DELETE" in covered_up
    assert admin.verification()["valid"] == expected
    for keys in ([SIGNER.public_key], []):
        assert (check_offline(admin.export(), keys=keys) == verifier.WHOLE) == expected


def compute_anew(superuser: Any, org_id: int, event: int) -> None:
    """The event is another's now, and every hash is right."""
    with superuser.transaction() as tx:
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        tx.execute(
            text("UPDATE heartguard_core.audit_events SET actor = '2' WHERE org_id = :org AND sequence = :n"),
            {"org": org_id, "n": event},
        )
        hash_ = START
        hashes = []
        for row in db_read.links(tx, org_id, 0, 10_000, 10_000):
            hash_ = next_hash(hash_, canonical_of(row))
            hashes.append({"org": org_id, "n": row.sequence, "hash": hash_})
        for table in ("events", "checkpoints", "chains"):
            tx.execute(
                text(f"UPDATE heartguard_core.audit_{table} SET hash = :hash WHERE org_id = :org AND sequence = :n"),
                hashes,
            )


def test_a_former_key_is_known_where_it_is_given(
    admin: Caller, fill: Fill, database: Database, run_service: Callable[..., Any], check_offline: Callable[..., int]
) -> None:
    former = Signer(b"the key that there was before, 32 bytes")
    fill(admin, 10)
    with database.transaction() as tx:
        Recorder(database, former).sign(tx, admin.org_id)
    fill(admin, 10)
    found = admin.verification()
    assert (found["valid"], found["first_bad_sequence"]) == (False, 10)
    assert check_offline(admin.export()) == verifier.UNCHECKED
    assert check_offline(admin.export(), keys=[SIGNER.public_key, former.public_key]) == verifier.WHOLE
    with run_service(AUDIT_FORMER_KEYS=former.public_key.hex()) as app:
        assert Caller(app, admin.org_id).verification()["valid"]


def test_the_service_itself_cannot_hide_the_newest_events(
    admin: Caller, fill: Fill, database: Database, superuser: Any
) -> None:
    """Its role may move a chain's end, which it does with every event: but not back."""
    fill(admin, 20)
    with database.transaction(admin.org_id) as tx:
        tx.execute(
            text(
                "UPDATE heartguard_core.audit_chains c SET sequence = 15, hash = e.hash"
                " FROM heartguard_core.audit_events e WHERE c.org_id = :org AND e.org_id = :org AND e.sequence = 15"
            ),
            {"org": admin.org_id},
        )
    found = admin.verification()
    assert (found["valid"], found["first_bad_sequence"]) == (False, 16)
    assert admin.send("GET", "/audit/export").status_code == 500
    fill(admin, 5)
    assert not admin.verification()["valid"], "others in their place"


def test_a_chain_that_grows_while_it_is_verified_is_whole(admin: Caller, fill: Fill) -> None:
    growing = threading.Thread(target=lambda: [fill(admin, 1) for _ in range(200)])
    growing.start()
    found = [admin.verification()["valid"] for _ in iter(growing.is_alive, False)]
    growing.join()
    assert found
    assert all(found)


def test_a_long_chain_is_gone_along_in_pieces(admin: Caller, fill: Fill, database: Database) -> None:
    fill(admin, 100)
    verification = Verification(database, SIGNER, budget=0, page=30)
    for piece in (30, 60, 90):
        with pytest.raises(Unavailable, match=f"up to {piece} of 100"):
            verification.verify(admin.org_id)
    found = verification.verify(admin.org_id)
    assert (found.valid, found.events) == (True, 100)


def test_who_verifies_at_once_takes_nothing_from_one_who_came_further(
    admin: Caller, fill: Fill, database: Database
) -> None:
    """One stops after each page; another, that began with it, comes in between."""
    fill(admin, 100)
    verification = Verification(database, SIGNER, budget=0, page=30)
    slow = verification._resume(admin.org_id)
    for piece in (30, 60):
        with pytest.raises(Unavailable, match=f"up to {piece} of 100"):
            verification.verify(admin.org_id)
    verification._look_at_page(admin.org_id, slow)
    verification._keep(admin.org_id, slow)
    fast = verification._resume(admin.org_id)
    assert (slow.sequence, fast.sequence) == (30, 60)
    with pytest.raises(Unavailable, match="up to 90 of 100"):
        verification.verify(admin.org_id)
    assert verification.verify(admin.org_id).valid
    with pytest.raises(Unavailable, match="up to 30 of 100"):
        verification.verify(admin.org_id)


def test_exports_are_the_same_in_pieces_of_any_size(admin: Caller, fill: Fill, database: Database) -> None:
    fill(admin, 1500)
    one, other = (b"".join(exported(Export(database, SIGNER, page=page), admin.org_id)) for page in (7, 2000))
    assert one.splitlines()[:-1] == other.splitlines()[:-1]
    assert [line[:15] for line in one.splitlines()].count(b'{"checkpoint":{') == 1


def test_an_export_holds_what_there_was_when_it_was_asked_for(
    admin: Caller, fill: Fill, database: Database, check_offline: Callable[..., int]
) -> None:
    fill(admin, 300)
    lines = exported(Export(database, SIGNER, page=100), admin.org_id)
    first = next(lines) + next(lines)
    fill(admin, 300)
    export = first + b"".join(lines)
    assert json.loads(export.splitlines()[-1])["end"]["events"] == 300
    assert check_offline(export) == verifier.WHOLE


def test_an_export_of_a_chain_with_a_gap_has_no_end(
    admin: Caller, fill: Fill, tamper: Callable[..., None], database: Database, check_offline: Callable[..., int]
) -> None:
    fill(admin, 300)
    tamper(f"DELETE FROM {EVENTS} AND sequence = 250")
    written: list[bytes] = []
    with pytest.raises(Exception, match="missing between 200 and 300"):
        written.extend(exported(Export(database, SIGNER, page=100), admin.org_id))
    assert check_offline(b"".join(written)) == verifier.ALTERED


def test_the_key_is_known_by_its_owner_only(admin: Caller, fill: Fill, check_offline: Callable[..., int]) -> None:
    fill(admin, 5)
    export = admin.export()
    stranger = Signer(b"another signing key, also of 32 bytes")
    assert check_offline(export, keys=[stranger.public_key]) == verifier.ALTERED
    assert check_offline(export, keys=[]) == verifier.WHOLE
    assert check_offline(b"") == verifier.UNCHECKED
    assert check_offline(b'{"format":"other"}\n') == verifier.UNCHECKED


def mutated(lines: list[bytes], chance: random.Random) -> tuple[str, bytes]:
    """The export, altered at random in one of the ways that there are."""
    lines = list(lines)
    at = chance.randrange(len(lines))
    match kind := chance.choice(("edit", "delete", "insert", "swap", "move", "truncate", "cut", "digit", "append")):
        case "edit":
            line = bytearray(lines[at])
            where = chance.randrange(len(line))
            line[where] = (line[where] + chance.randrange(1, 256)) % 256
            lines[at] = bytes(line)
        case "digit":
            line = bytearray(lines[at])
            digits = [index for index, byte in enumerate(line) if byte in b"0123456789"]
            where = chance.choice(digits)
            line[where] = chance.choice([digit for digit in b"0123456789" if digit != line[where]])
            lines[at] = bytes(line)
        case "delete":
            del lines[at : at + chance.randrange(1, 4)]
        case "insert":
            lines.insert(at, chance.choice(lines))
        case "swap":
            other = chance.choice([n for n in range(len(lines)) if lines[n] != lines[at]])
            lines[at], lines[other] = lines[other], lines[at]
        case "move":
            line = lines.pop(at)
            lines.insert(chance.choice([n for n in range(len(lines) + 1) if n != at]), line)
        case "truncate":
            lines = lines[:at]
        case "cut":
            lines[-1:] = []
            lines += [lines[-1][: chance.randrange(len(lines[-1]))]]
        case "append":
            lines.append(chance.choice(lines))
    return kind, b"".join(lines)


def test_whatever_is_done_to_an_export_is_found(
    admin: Caller, fill: Fill, recorder: Recorder, database: Database, check_offline: Callable[..., int]
) -> None:
    for _ in range(3):
        fill(admin, 12)
        with database.transaction() as tx:
            recorder.sign(tx, admin.org_id)
    export = b"".join(exported(Export(database, SIGNER, page=12), admin.org_id))
    lines = export.splitlines(keepends=True)
    assert sum(line.startswith(b'{"checkpoint"') for line in lines) == 3
    assert check_offline(export) == verifier.WHOLE
    chance = random.Random(MUTATIONS)
    done: dict[str, int] = {}
    for _ in range(MUTATIONS):
        kind, altered = mutated(lines, chance)
        if altered == export:
            continue
        done[kind] = done.get(kind, 0) + 1
        status = check_offline(altered)
        assert status != verifier.WHOLE, (kind, altered)
    print(done)
    assert len(done) == 9


def test_ed25519_agrees_with_another_implementation() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    chance = random.Random(25519)
    for length in range(12):
        private = Ed25519PrivateKey.from_private_bytes(chance.randbytes(32))
        public, message = private.public_key().public_bytes_raw(), chance.randbytes(length * 7)
        signature = private.sign(message)
        assert verifier.signed(public, message, signature.hex())
        for part in (signature, message, public):
            if not part:
                continue
            wrong = bytearray(part)
            wrong[chance.randrange(len(wrong))] ^= 1 << chance.randrange(8)
            given = {signature: signature, message: message, public: public, part: bytes(wrong)}
            assert not verifier.signed(given[public], given[message], given[signature].hex())
    assert not verifier.signed(public, message, signature.hex()[:-2])
    assert not verifier.signed(public, message, None)
    too_large = int.from_bytes(signature[32:], "little") + verifier._Q
    assert not verifier.signed(public, message, (signature[:32] + too_large.to_bytes(32, "little")).hex())
