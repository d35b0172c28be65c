"""How long things may take."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Timing:
    abandoned_ms: int = 20_000
    """An event that was given to a process which has not recorded it for so long is taken over from it."""
    intent_seconds: float = 60.0
    """Longer than the gateway waits for anything: an intent without an outcome for so long is reported."""
    sign_seconds: float = 60.0
    """After so long, a chain that has grown gets a checkpoint."""


TIMING = Timing()
