"""The contract's XML mapping (section 1), in both directions."""

from .reader import interpret, parse
from .writer import dumps, dumps_plain

__all__ = ["dumps", "dumps_plain", "interpret", "parse"]
