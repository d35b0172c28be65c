"""What a request is known by: its ids and where it came from."""

import re
import secrets
import uuid
from dataclasses import dataclass

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?\Z")


def request_id(given: str | None) -> str:
    """The client's id where it is well formed, else a new one."""
    return given if given and REQUEST_ID.match(given) else str(uuid.uuid4())


def traceparent(given: str | None) -> str:
    """The W3C trace context to pass on: the given one where it is well formed, else a new trace."""
    if given and TRACEPARENT.match(given):
        return given
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


@dataclass(frozen=True)
class Client:
    """Where a request came from, as the gateway saw it."""

    ip: str
    user_agent: str
