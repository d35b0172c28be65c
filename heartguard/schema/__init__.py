"""The published schemas, and what is wrong with a value by them."""

from .json_schema import Schema, definitions, document, domains, error_responses
from .violations import violations
from .xsd import xsd

__all__ = ["Schema", "definitions", "document", "domains", "error_responses", "violations", "xsd"]
