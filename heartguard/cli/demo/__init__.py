"""``heartguard demo``: two patients, a clinician and a manager, real heart data, and the audit trail of it all."""

from .command import demo

__all__ = ["demo"]
