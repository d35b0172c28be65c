#!/usr/bin/env python3
"""Checks exports of HeartGuard's audit trail, offline.

This file needs nothing but Python 3.11 or later: copy it to wherever the exports are.

    python verify.py audit-7.ndjson --key audit.pub

It recomputes the hash of every event, and checks what is signed with the key's Ed25519 (RFC 8032). So it tells
events that were edited, deleted, inserted or put into another order, and an export that was cut off. Several files
are parts of one chain, the oldest first: archived months, and what was exported in one part or several. Where the key
was changed, --key is given for each of those that there were.

A part proves only itself. Only from the first event to where the chain ended when it was exported it is WHOLE; with
less given it is a PART, whatever is right in it.

A chain that was computed anew as a whole is told by its checkpoints, which then nobody can have signed: they must be
there, and be signed with a known key.

Exit status: 0 the chain is whole; 1 something was altered or is missing; 2 it could not be checked; 3 what was given is
as it was recorded, but is a part only.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

FORMAT = "heartguard-audit-1"
CHECKPOINT = b"heartguard audit checkpoint\n"
EXPORT = b"heartguard audit export\n"
LONGEST_LINE = 262_144
MOST_UNSIGNED = 4_000
"""Events without a checkpoint: they are made after 1,000 and a batch of 2,000, and one for each 1,000 is exported."""
LEAST_UNSIGNED = 1_000
"""At its end a chain has fewer."""

START = "0" * 64
"""Stands before the first event."""

WHOLE, ALTERED, UNCHECKED, PART = 0, 1, 2, 3


class Altered(Exception):
    """Something is not as it was recorded; the message says what is, and from which event on."""


class Unchecked(Exception):
    """It cannot be told, because this is no export or because it cannot be read."""


@dataclass
class Chain:
    """How far a chain has been checked."""

    org_id: int
    sequence: int
    hash: str
    signed: int
    """Up to where a checkpoint vouches for it."""
    first: int
    """Of the events that were checked; the earlier parts' too."""
    checkpoints: int = 0
    """The earlier parts' too."""
    events: int = 0
    """Of this part."""
    ended: str | None = None
    """When it was exported, if that was all that there was then."""

    @property
    def whole(self) -> bool:
        return self.first == 1 and self.ended is not None

    @property
    def extent(self) -> str:
        return f"events {self.first} to {self.sequence}" if self.sequence >= self.first else "no events"


def verify(file: BinaryIO, keys: Sequence[bytes], before: Chain | None, report: Callable[[int], object]) -> Chain:
    """Check one export; ``before`` is the part of the chain that comes before it. ``report`` is told of bytes read.

    Without ``keys`` the one that the export names is believed. Raises :class:`Altered`, :class:`Unchecked`.
    """
    digest = hashlib.sha256()
    heading = file.readline(LONGEST_LINE)
    said = _heading(heading)
    key = bytes.fromhex(said["public_key"])
    if keys and key not in keys:
        raise Altered("signed with another key than the one given")
    known = {_key_id(one): one for one in keys or [key]}
    first = said["first_sequence"]
    chain = Chain(said["org_id"], first - 1, said["previous_hash"], first - 1, first)
    if before:
        _goes_on(said, before)
        chain.signed, chain.first, chain.checkpoints = before.signed, before.first, before.checkpoints
    digest.update(heading)
    for line in _lines(file):
        if line.startswith(b'{"event":'):
            _event(line, chain)
        elif line.startswith(b'{"checkpoint":'):
            _checkpoint(line, chain, known)
        else:
            exported = _end(line, chain, key, digest.hexdigest())
            if file.read(1):
                raise Altered("something was added behind the end")
            if chain.sequence != said["last_sequence"]:
                raise Altered("the first line says that there are more events, or fewer")
            _is_signed(chain, said.get("signed_sequence"))
            chain.ended = exported if "signed_sequence" in said else None
            return chain
        digest.update(line)
        report(len(line))
    raise Altered(f"cut off after event {chain.sequence}: the signed end is missing")


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(LONGEST_LINE):
        yield line


def _heading(line: bytes) -> dict[str, Any]:
    said = _parsed(line)
    if said.get("format") != FORMAT:
        raise Unchecked(f"this is no export of the format {FORMAT}")
    numbers = ("org_id", "first_sequence", "last_sequence", *({"signed_sequence"} & said.keys()))
    if any(type(said.get(name)) is not int for name in numbers) or any(
        not isinstance(said.get(name), str) or len(said[name]) != 64 or not _is_hex(said[name])
        for name in ("public_key", "previous_hash")
    ):
        raise Altered("the first line is not as it was written")
    if said["first_sequence"] < 1 or (said["first_sequence"] == 1 and said["previous_hash"] != START):
        raise Altered("the first line says that something was before the first event")
    return said


def _goes_on(said: dict[str, Any], before: Chain) -> None:
    """Whether a part begins where the one before it ends."""
    first = said["first_sequence"]
    if said["org_id"] != before.org_id:
        raise Altered(
            f"this part is of organization {said['org_id']}, what is before it of organization {before.org_id}"
        )
    if said["last_sequence"] < before.first:
        raise Altered(f"this part begins with event {first}, and belongs before event {before.first}: the oldest first")
    if first <= before.sequence:
        raise Altered(
            f"this part begins with event {first}, but the one before it ends with {before.sequence}: they overlap"
        )
    if first > before.sequence + 1:
        raise Altered(f"a part is missing before this one: events {before.sequence + 1} to {first - 1}")
    if said["previous_hash"] != before.hash:
        raise Altered(f"this part goes on from another event {before.sequence} than the part before it ends with")


def _event(line: bytes, chain: Chain) -> None:
    """The bytes between ``{"event":`` and ``,"hash":"…"}`` are what is hashed."""
    number = chain.sequence + 1
    content = line[9:-76]
    if line[-76:-67] != b',"hash":"' or line[-3:] != b'"}\n':
        raise Altered(f"event {number} is not as it was written")
    found = hashlib.sha256(bytes.fromhex(chain.hash) + content).hexdigest()
    if found.encode() != line[-67:-3]:
        raise Altered(f"event {number} was altered, or is not the one that was here")
    event = _parsed(content)
    if (event.get("sequence"), event.get("org_id")) != (number, chain.org_id):
        raise Altered(f"event {number} is missing, or events are in another order")
    chain.sequence, chain.hash = number, found
    chain.events += 1


def _checkpoint(line: bytes, chain: Chain, keys: Mapping[str, bytes]) -> None:
    said = _parsed(line)
    checkpoint = said.get("checkpoint")
    if not isinstance(checkpoint, dict):
        raise Altered(f"the checkpoint after event {chain.sequence} is not as it was written")
    stated = (checkpoint.get("org_id"), checkpoint.get("sequence"), checkpoint.get("hash"))
    if stated != (chain.org_id, chain.sequence, chain.hash):
        raise Altered(f"a signed checkpoint says otherwise than the chain up to event {chain.sequence}")
    key = keys.get(str(checkpoint.get("key_id")))
    if key is None:
        raise Unchecked(
            f"the checkpoint after event {chain.sequence} is signed with an unknown key: if it is a former one of the"
            " service, give that too (--key); if not, the chain was altered"
        )
    if not signed(key, CHECKPOINT + _canonical(checkpoint), said.get("signature")):
        raise Altered(f"the checkpoint after event {chain.sequence} was not signed with the key")
    _is_signed(chain, None)
    chain.checkpoints += 1
    chain.signed = chain.sequence


def _is_signed(chain: Chain, upto: int | None) -> None:
    """Whether checkpoints are where they must be; ``upto`` is where the chain says that there is one, at its end."""
    least = chain.sequence - MOST_UNSIGNED
    if upto is not None:
        least = max(upto, chain.sequence - LEAST_UNSIGNED + 1)
    if chain.signed < least:
        raise Altered(f"checkpoints are missing after event {chain.signed}")


def _end(line: bytes, chain: Chain, key: bytes, digest: str) -> str:
    """When it was signed."""
    said = _parsed(line)
    end = said.get("end")
    if not isinstance(end, dict):
        raise Altered(f"a line was altered after event {chain.sequence}")
    if not signed(key, EXPORT + _canonical(end), said.get("signature")):
        raise Altered("the end of the export was not signed with the key")
    stated = (end.get("org_id"), end.get("sequence"), end.get("hash"), end.get("events"))
    if stated != (chain.org_id, chain.sequence, chain.hash, chain.events):
        raise Altered(f"events are missing after event {chain.sequence}")
    if end.get("file_sha256") != digest:
        raise Altered("a line that is no event was altered, or is missing")
    at = end.get("signed_at")
    if not isinstance(at, str) or not set(at) <= set("0123456789-:.TZ"):  # it is shown on a terminal
        raise Altered("the end of the export is not as it was written")
    return at


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _key_id(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()[:16]


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdef" for character in text)


# Ed25519 (RFC 8032, section 5.1 and 6): points are (X, Y, Z, T) with x = X/Z, y = Y/Z, x·y = T/Z.

_P = 2**255 - 19
_Q = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)
_Point = tuple[int, int, int, int]


def signed(key: bytes, message: bytes, signature: object) -> bool:
    """Whether ``signature`` (128 hexadecimal digits) is the key's, for the message."""
    if not isinstance(signature, str) or len(signature) != 128 or not _is_hex(signature):
        return False
    raw = bytes.fromhex(signature)
    public, random = _decompress(key), _decompress(raw[:32])
    s = int.from_bytes(raw[32:], "little")
    if public is None or random is None or s >= _Q:
        return False
    h = int.from_bytes(hashlib.sha512(raw[:32] + key + message).digest(), "little") % _Q
    return _equal(_times(s, _BASE), _add(random, _times(h, public)))


def _add(a: _Point, b: _Point) -> _Point:
    c, d = (a[1] - a[0]) * (b[1] - b[0]) % _P, (a[1] + a[0]) * (b[1] + b[0]) % _P
    e, f = 2 * a[3] * b[3] * _D % _P, 2 * a[2] * b[2] % _P
    x, y, z, t = d - c, f - e, f + e, d + c
    return x * y % _P, z * t % _P, y * z % _P, x * t % _P


def _times(number: int, point: _Point) -> _Point:
    result = (0, 1, 1, 0)
    while number:
        if number & 1:
            result = _add(result, point)
        point = _add(point, point)
        number >>= 1
    return result


def _equal(a: _Point, b: _Point) -> bool:
    return (a[0] * b[2] - b[0] * a[2]) % _P == 0 and (a[1] * b[2] - b[1] * a[2]) % _P == 0


def _decompress(raw: bytes) -> _Point | None:
    """The point that 32 bytes stand for, if they stand for one."""
    y = int.from_bytes(raw, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    if len(raw) != 32 or y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    x = _P - x if x & 1 != sign else x
    return x, y, 1, x * y % _P


_base = _decompress((4 * pow(5, _P - 2, _P) % _P).to_bytes(32, "little"))
assert _base is not None
_BASE: _Point = _base


class Progress:
    """A bar on a terminal, and nothing elsewhere."""

    WIDTH = 40

    def __init__(self, total: int) -> None:
        self._total = max(1, total)
        self._read = 0
        self._shown = time.monotonic()
        self._visible = sys.stderr.isatty()

    def __call__(self, size: int) -> None:
        self._read += size
        if self._visible and time.monotonic() - self._shown > 0.1:
            self._shown = time.monotonic()
            self._show()

    def _show(self) -> None:
        share = min(1.0, self._read / self._total)
        bar = "#" * round(share * self.WIDTH)
        print(f"\r[{bar:<{self.WIDTH}}] {share:4.0%}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._visible:
            print("\r" + " " * (self.WIDTH + 10) + "\r", end="", file=sys.stderr, flush=True)


def run(files: Sequence[Path], keys: Sequence[Path] = ()) -> int:
    """Check the files, say what was found, and return the exit status."""
    where = ""
    progress: Progress | None = None
    try:
        known = [_read_key(key) for key in keys]
        progress = Progress(sum(file.stat().st_size for file in files))
        chain: Chain | None = None
        for path in files:
            where = f"{path}: "
            with path.open("rb") as file:
                chain = verify(file, known, chain, progress)
        where = ""
        assert chain is not None
        _is_vouched_for(chain)
    except Altered as error:
        return _say(progress, f"ALTERED  {where}{error}", ALTERED)
    except (Unchecked, OSError) as error:
        return _say(progress, f"UNCHECKED  {where}{error}", UNCHECKED)
    status, word = (WHOLE, "WHOLE") if chain.whole else (PART, "PART ")
    _say(progress, f"{word}  organization {chain.org_id}: {chain.extent}, hash {chain.hash}", status)
    print(f"       {chain.checkpoints} signed checkpoints and {len(files)} signed end(s) agree")
    for line in _uncovered(chain):
        print(f"       {line}")
    if not known:
        print("       signed with the key that the export itself names: give --key to know whose that is")
    return status


def _is_vouched_for(chain: Chain) -> None:
    """Where a chain is cut, its own rules about checkpoints tell nothing: a part needs one."""
    if not chain.whole and not chain.checkpoints:
        raise Unchecked(
            f"only a part of the chain was given ({chain.extent} of organization {chain.org_id}), and without a signed"
            " checkpoint nothing tells whether it was computed anew: give the parts around it too"
        )


def _uncovered(chain: Chain) -> Iterator[str]:
    """What the files say nothing of."""
    if chain.first > 1:
        yield f"NOT CHECKED: events 1 to {chain.first - 1}; give the earlier parts too, the oldest first"
    if chain.ended is not None:
        yield f"NOT CHECKED: what was recorded after {chain.ended}, when this was exported"
        return
    yield f"NOT CHECKED: whatever comes after event {chain.sequence}; give the later parts too"
    if chain.signed < chain.sequence:
        yield f"no checkpoint vouches for events {chain.signed + 1} to {chain.sequence}: one in the next part can"


def _say(progress: Progress | None, text: str, status: int) -> int:
    if progress:
        progress.close()
    print(text)
    return status


def _read_key(path: Path) -> bytes:
    text = path.read_text(encoding="ascii", errors="replace").strip().lower()
    if len(text) != 64 or not _is_hex(text):
        raise Unchecked(f"{path} holds no key: it should be 64 hexadecimal digits")
    return bytes.fromhex(text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check exports of HeartGuard's audit trail, offline.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="parts of one chain, the oldest first")
    parser.add_argument(
        "--key", type=Path, metavar="FILE", action="append", default=[],
        help="the public key, as `heartguard audit key` prints it; more than once where there were others before",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    return run(given.files, given.key)


if __name__ == "__main__":
    sys.exit(main())
