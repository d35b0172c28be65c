"""The contract's XML mapping (section 1), in both directions."""

from .reader import parse
from .writer import dumps

__all__ = ["dumps", "parse"]
