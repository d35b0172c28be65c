"""The stream in Valkey that events are sent through: bounded, and written by one script.

Whoever has a connection of its own to Valkey (the gateway) sends :func:`append_command` over it, reads the answer with
:func:`was_appended`, and gives the events to :meth:`heartguard.audit.Trail.sent` or, where they were not taken, to
:meth:`heartguard.audit.Trail.put_aside`.
"""

from collections.abc import Sequence

import hiredis

from ..resp import Script
from ..valkey import FastValkey

STREAM = "audit:events"
GROUP = "audit"
FIELD = b"e"
"""The one field of an entry: the event, as JSON."""
BOUND = 1_000_000
"""Entries that the stream may hold, at half a kilobyte each; then events go to the spools."""

APPEND = Script("""
if redis.call('XLEN', KEYS[1]) + #ARGV - 1 > tonumber(ARGV[1]) then
  return 0
end
for i = 2, #ARGV do
  redis.call('XADD', KEYS[1], '*', 'e', ARGV[i])
end
return 1
""")
"""KEYS: the stream. ARGV: its bound, the events. Answers 1, or 0 where the stream is at its bound."""

_DEPTH = Script("return redis.call('XLEN', KEYS[1])")


class StreamFull(Exception):
    """The stream is at its bound: nobody reads it, or not fast enough."""


class Stream:
    """Sends events. ``bound`` is in entries."""

    def __init__(self, valkey: FastValkey, bound: int = BOUND) -> None:
        self._valkey = valkey
        self._bound = bound

    @property
    def away(self) -> bool:
        """Whether Valkey did not answer when it was last asked."""
        return self._valkey.away

    def append(self, events: Sequence[bytes]) -> bytes:
        """Which Valkey process has taken them. Raises :class:`heartguard.errors.Unavailable`, after which they may be
        there all the same, or :class:`StreamFull`."""
        appended, run_id = self._valkey.run(APPEND, [STREAM], [self._bound, *events])
        if not appended:
            raise StreamFull
        return run_id

    def depth(self) -> tuple[int, bytes]:
        """How many events wait, and which Valkey process has them. Raises :class:`heartguard.errors.Unavailable`."""
        return self._valkey.run(_DEPTH, [STREAM], [])

    def close(self) -> None:
        self._valkey.close()


def append_command(events: Sequence[bytes], *, whole_script: bool = False, bound: int = BOUND) -> bytes:
    """The bytes to send to Valkey for ``events``; with the ``whole_script`` where it answered ``NOSCRIPT``."""
    script: tuple[str, str] = ("EVAL", APPEND.source) if whole_script else ("EVALSHA", APPEND.sha)
    packed: bytes = hiredis.pack_command((*script, 1, STREAM, bound, *events))  # type: ignore[arg-type]
    return packed


def was_appended(answer: object) -> bool:
    """Whether Valkey, so answering :func:`append_command`, has the events; else they belong into the spool."""
    return answer == 1
