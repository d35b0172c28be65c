"""The contract's XML mapping (section 1), in both directions."""

from .reader import parse
from .writer import dumps, dumps_plain

__all__ = ["dumps", "dumps_plain", "parse"]
