"""What granian hands over with each request on the event loop: the types of its RSGI interface."""

from collections.abc import AsyncIterator
from typing import Protocol as Interface

Headers = list[tuple[str, str]]


class RequestHeaders(Interface):
    """The names are in lower case. One that came twice is there twice; one whose value is not ASCII is only a key."""

    def items(self) -> Headers: ...

    def keys(self) -> list[str]: ...


class Scope(Interface):
    """What is known of a request. ``client`` and ``server`` are address and port.

    ``path`` is decoded, with U+FFFD for what is not UTF-8; ``query_string`` is as it was sent, in UTF-8.
    """

    http_version: str
    server: str
    client: str
    scheme: str
    method: str
    path: str
    query_string: str
    headers: RequestHeaders


class Protocol(Interface):
    """Where the request's body comes from, in pieces, and its answer goes to."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None: ...

    def response_file(self, status: int, headers: Headers, file: str) -> None:
        """The file is opened and read later, piece by piece."""
