"""The OpenAPI 3.1 document of all services, made from their endpoints' own statements."""

from .document import document

__all__ = ["document"]
