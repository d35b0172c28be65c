"""The published schemas, and what is wrong with a value by them."""

from .json_schema import document, domains
from .violations import violations
from .xsd import xsd

__all__ = ["document", "domains", "violations", "xsd"]
