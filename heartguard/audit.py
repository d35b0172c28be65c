"""Events for the audit trail."""

from typing import Any, Literal

from .logs import log

Outcome = Literal["success", "failure", "denied"]


def emit(action: str, actor: str, outcome: Outcome = "success", **payload: Any) -> None:
    """Record that ``actor`` did ``action``. Until the audit service exists, the log keeps it.

    ``payload`` must hold neither secrets nor personal data.
    """
    log.info("audit", action=action, actor=actor, outcome=outcome, payload=payload)
