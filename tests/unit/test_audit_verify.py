"""The offline verifier, given parts of a chain: what is done to them is found, and none passes for the whole.

The parts are made here as the audit service makes them; ``test_audit_export.py`` has the service's own.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from heartguard import audit
from heartguard.audit import verify
from heartguard.audit.chain import START, Checkpoint, ExportEnd, canonical, link, next_hash
from services.audit.src.signing import Signer

SIGNER = Signer(b"a signing key of the tests, of 32 bytes or more")
STRANGER = Signer(b"the key of somebody else, of 32 bytes or more")
NOW = "2024-06-01T10:00:00.000000Z"
LENGTH = 30
Check = Callable[..., tuple[int, str]]


def line(content: Any) -> bytes:
    return msgspec.json.encode(content, order="sorted") + b"\n"


class Chain:
    """Of an organization; checkpoints are at every tenth event."""

    def __init__(self, org_id: int = 7, start: bytes = START, first: int = 1) -> None:
        self.org_id = org_id
        self.hashes = {first - 1: start}
        self.events: dict[int, bytes] = {}
        self.every = 10
        for number in range(first, LENGTH + 1):
            event = audit.make("LOGIN", "1", service="auth", org_id=org_id, payload={"n": number})
            self.events[number] = canonical(link(event, number, NOW))
            self.hashes[number] = next_hash(self.hashes[number - 1], self.events[number])

    def part(self, first: int, last: int, *, signer: Signer = SIGNER, **heading: Any) -> bytes:
        """As the service exports it; ``heading`` is what its first line says otherwise."""
        said = {
            "format": verify.FORMAT,
            "org_id": self.org_id,
            "first_sequence": first,
            "last_sequence": last,
            "previous_hash": self.hashes[first - 1].hex(),
            "key_id": signer.key_id,
            "public_key": signer.public_key.hex(),
            **({"signed_sequence": last - last % self.every} if last == LENGTH else {}),
        }
        lines = [line({**said, **heading}), *(self._lines(number) for number in range(first, last + 1))]
        return self.signed(b"".join(lines), first, last, signer)

    def signed(self, content: bytes, first: int, last: int, signer: Signer, at: str = NOW) -> bytes:
        """With the end that the service would put behind it."""
        end = ExportEnd(
            events=last - first + 1,
            file_sha256=hashlib.sha256(content).hexdigest(),
            hash=self.hashes[last].hex(),
            key_id=signer.key_id,
            org_id=self.org_id,
            sequence=last,
            signed_at=at,
        )
        return content + line({"end": end, "signature": signer.sign_export(end).hex()})

    def _lines(self, number: int) -> bytes:
        written = b'{"event":%b,"hash":"%b"}\n' % (self.events[number], self.hashes[number].hex().encode())
        return written if number % self.every else written + self._checkpoint(number)

    def _checkpoint(self, number: int) -> bytes:
        checkpoint = Checkpoint(
            hash=self.hashes[number].hex(),
            key_id=SIGNER.key_id,
            org_id=self.org_id,
            sequence=number,
            signed_at=NOW,
        )
        return line({"checkpoint": checkpoint, "signature": SIGNER.sign_checkpoint(checkpoint).hex()})


@pytest.fixture(scope="module")
def chain() -> Chain:
    return Chain()


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """The exit status, and what was said."""
    key = tmp_path / "audit.pub"
    key.write_text(SIGNER.public_key.hex())

    def run(*parts: bytes, keys: Sequence[Path] = (key,)) -> tuple[int, str]:
        files = [tmp_path / f"{number}.ndjson" for number in range(len(parts))]
        for file, part in zip(files, parts, strict=True):
            file.write_bytes(part)
        return verify.run(files, keys), capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    "extents",
    [[(1, 30)], [(1, 15), (16, 30)], [(1, 10), (11, 20), (21, 30)], [(1, 1), (2, 29), (30, 30)], [(1, 30), (31, 30)]],
)
def test_parts_in_a_row_are_the_whole(chain: Chain, check: Check, extents: list[tuple[int, int]]) -> None:
    status, told = check(*(chain.part(*extent) for extent in extents))
    assert (status, told.startswith("WHOLE  organization 7: events 1 to 30, hash")) == (verify.WHOLE, True)
    assert f"NOT CHECKED: what was recorded after {NOW}, when this was exported" in told
    assert told.count("NOT CHECKED") == 1


@pytest.mark.parametrize(
    ("extents", "uncovered"),
    [
        ([(1, 20)], ["whatever comes after event 20"]),
        ([(11, 20)], ["events 1 to 10", "whatever comes after event 20"]),
        ([(11, 20), (21, 30)], ["events 1 to 10", "what was recorded after"]),
        ([(2, 30)], ["events 1 to 1;", "what was recorded after"]),
    ],
)
def test_a_part_is_never_the_whole(
    chain: Chain, check: Check, extents: list[tuple[int, int]], uncovered: list[str]
) -> None:
    status, told = check(*(chain.part(*extent) for extent in extents))
    shown = f"PART   organization 7: events {extents[0][0]} to {extents[-1][1]}, hash"
    assert (status, told.startswith(shown), "WHOLE" in told) == (verify.PART, True, False)
    assert told.count("NOT CHECKED") == len(uncovered)
    for what in uncovered:
        assert f"NOT CHECKED: {what}" in told


def test_a_part_says_what_no_checkpoint_vouches_for(chain: Chain, check: Check) -> None:
    assert "no checkpoint vouches" not in check(chain.part(5, 20))[1]
    assert "no checkpoint vouches for events 21 to 24" in check(chain.part(5, 24))[1]
    assert "no checkpoint vouches for events 21 to 24" in check(chain.part(5, 15), chain.part(16, 24))[1]


@pytest.mark.parametrize(
    ("extents", "said"),
    [
        ([(1, 10), (21, 30)], "1.ndjson: a part is missing before this one: events 11 to 20"),
        ([(1, 10), (12, 30)], "a part is missing before this one: events 11 to 11"),
        ([(1, 10), (10, 30)], "begins with event 10, but the one before it ends with 10: they overlap"),
        ([(1, 20), (11, 30)], "begins with event 11, but the one before it ends with 20: they overlap"),
        ([(1, 20), (1, 30)], "begins with event 1, but the one before it ends with 20: they overlap"),
        ([(1, 10), (1, 10)], "begins with event 1, but the one before it ends with 10: they overlap"),
        ([(11, 20), (1, 10)], "begins with event 1, and belongs before event 11: the oldest first"),
        ([(1, 10), (21, 30), (11, 20)], "a part is missing before this one: events 11 to 20"),
    ],
)
def test_parts_that_are_not_in_a_row(chain: Chain, check: Check, extents: list[tuple[int, int]], said: str) -> None:
    status, told = check(*(chain.part(*extent) for extent in extents))
    assert (status, said in told) == (verify.ALTERED, True), told


def test_a_part_of_another_organization(chain: Chain, check: Check) -> None:
    status, told = check(chain.part(1, 10), Chain(8).part(11, 30))
    said = "this part is of organization 8, what is before it of organization 7"
    assert (status, said in told) == (verify.ALTERED, True)


def edited(lines: list[bytes]) -> Iterable[list[bytes]]:
    for at in range(len(lines)):
        digit = next(index for index in reversed(range(len(lines[at]))) if lines[at][index] in b"01234567")
        yield [*lines[:at], lines[at][:digit] + b"8" + lines[at][digit + 1 :], *lines[at + 1 :]]


def deleted(lines: list[bytes]) -> Iterable[list[bytes]]:
    yield from ([*lines[:at], *lines[at + 1 :]] for at in range(len(lines)))


def reordered(lines: list[bytes]) -> Iterable[list[bytes]]:
    yield from ([*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]] for at in range(len(lines) - 1))


def truncated(lines: list[bytes]) -> Iterable[list[bytes]]:
    yield from (lines[:at] for at in range(len(lines)))
    yield from ([*lines[:at], lines[at][:20]] for at in range(len(lines)))


def doubled(lines: list[bytes]) -> Iterable[list[bytes]]:
    yield from ([*lines[:at], lines[at], *lines[at:]] for at in range(len(lines)))


@pytest.mark.parametrize("how", [edited, deleted, reordered, truncated, doubled])
def test_what_is_done_to_a_part_is_found(
    chain: Chain, check: Check, how: Callable[[list[bytes]], Iterable[list[bytes]]]
) -> None:
    """By itself, and among the others."""
    before, part, after = chain.part(1, 7), chain.part(8, 23), chain.part(24, 30)
    assert check(part)[0] == verify.PART
    for lines in how(part.splitlines(keepends=True)):
        altered = b"".join(lines)
        for parts in ([altered], [before, altered, after]):
            assert check(*parts)[0] in (verify.ALTERED, verify.UNCHECKED), altered


def test_whose_end_is_anothers(chain: Chain, check: Check) -> None:
    """A shorter part with a longer one's end, and the other way round."""
    short, long = (chain.part(8, last).splitlines(keepends=True) for last in (20, 23))
    assert check(b"".join([*short[:-1], long[-1]]))[0] == verify.ALTERED
    assert check(b"".join([*long[:-1], short[-1]]))[0] == verify.ALTERED


@pytest.mark.parametrize(
    "otherwise",
    [
        {"first_sequence": 1}, {"first_sequence": 0}, {"last_sequence": 21}, {"last_sequence": 30}, {"org_id": 8},
        {"previous_hash": "0" * 64}, {"previous_hash": "f" * 64}, {"signed_sequence": 20}, {"key_id": "0" * 16},
    ],
)  # fmt: skip
def test_a_first_line_that_says_otherwise(chain: Chain, check: Check, otherwise: dict[str, Any]) -> None:
    part = chain.part(11, 20)
    heading, rest = chain.part(11, 20, **otherwise).partition(b"\n")[0], part.partition(b"\n")[2]
    assert check(heading + b"\n" + rest)[0] == verify.ALTERED
    assert check(chain.part(11, 20, signer=STRANGER, **otherwise))[0] == verify.ALTERED


@pytest.mark.parametrize(
    "otherwise",
    [
        {"first_sequence": 1}, {"first_sequence": 0}, {"last_sequence": 21}, {"org_id": 8},
        {"previous_hash": "0" * 64}, {"previous_hash": "f" * 64},
    ],
)  # fmt: skip
def test_not_even_the_service_can_sign_it(chain: Chain, check: Check, otherwise: dict[str, Any]) -> None:
    assert check(chain.part(11, 20, **otherwise))[0] == verify.ALTERED


def test_nothing_is_before_the_first_event(check: Check) -> None:
    forged = Chain(start=b"\1" * 32)
    status, told = check(forged.part(1, 30))
    assert (status, "something was before the first event" in told) == (verify.ALTERED, True)


def test_a_part_that_was_computed_anew_has_no_checkpoints(chain: Chain, check: Check) -> None:
    """From a forged hash on, in the database, so that the service signs its end: but no checkpoint has ever said so."""
    forged = Chain(start=b"\1" * 32, first=11)
    forged.every = 1_000
    for extent in ((11, 20), (11, 30), (25, 30)):
        status, told = check(forged.part(*extent))
        assert (status, "without a signed checkpoint" in told) == (verify.UNCHECKED, True)
        assert "WHOLE" not in told
    status, told = check(chain.part(1, 10), forged.part(11, 30))
    assert (status, "goes on from another event 10" in told) == (verify.ALTERED, True)
    genuine = chain.part(11, 20).splitlines(keepends=True)[-2]
    content = b"".join([*forged.part(11, 20).splitlines(keepends=True)[:-1], genuine])
    status, told = check(forged.signed(content, 11, 20, SIGNER))
    assert (status, "a signed checkpoint says otherwise" in told) == (verify.ALTERED, True)


def test_a_part_by_a_stranger(chain: Chain, check: Check) -> None:
    forged = Chain(start=b"\1" * 32, first=11)
    forged.every = 1_000
    assert check(forged.part(11, 20, signer=STRANGER))[0] == verify.ALTERED
    assert check(chain.part(1, 10), forged.part(11, 30, signer=STRANGER))[0] == verify.ALTERED
    assert check(forged.part(11, 20, signer=STRANGER), keys=())[0] == verify.UNCHECKED


def test_what_is_shown_of_an_end_is_a_time(chain: Chain, check: Check) -> None:
    content = b"".join(chain.part(1, 30).splitlines(keepends=True)[:-1])
    assert check(chain.signed(content, 1, 30, SIGNER))[0] == verify.WHOLE
    status, told = check(chain.signed(content, 1, 30, SIGNER, at="\33[2J"))
    assert (status, "\33" in told) == (verify.ALTERED, False)
