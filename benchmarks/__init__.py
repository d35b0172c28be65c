"""How fast HeartGuard is, beside others: ``heartguard bench``."""
