"""What a view's parameters are given of a request, but for its body."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from flask import request
from werkzeug.datastructures import MultiDict

from .context import Client
from .errors import Invalid
from .incoming import Incoming
from .models.base import Query
from .models.common import Detail
from .preconditions import IfMatch

Parameter = Callable[[], Any]
Q = TypeVar("Q", bound=Query)


def read_query(args: Mapping[str, str], type_: type[Q]) -> Q:
    """The parameters as ``type_``; what is wrong with them is a 422."""
    try:
        return msgspec.convert(args, type_, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid([Detail(path="?", message=_unquoted(str(error)))]) from None


def _unquoted(message: str) -> str:
    """A message of msgspec's without the value, which only one of an enumeration has: it may be a secret."""
    kind = "Invalid enum value"
    return kind + message[message.rfind(" - at `") :] if message.startswith(kind) else message


def single(args: MultiDict[str, str]) -> dict[str, str]:
    """The parameters of a query string. One that is given twice is a violation: which of the two would count?"""
    if repeated := [name for name, values in args.lists() if len(values) > 1]:
        raise Invalid([Detail(path=f"?{name[:100]}", message="is given more than once") for name in repeated])
    return args.to_dict()


def client() -> Client:
    """Where the request came from: the gateway says so in ``X-Forwarded-For``."""
    forwarded = request.headers.get("X-Forwarded-For", request.remote_addr or "")
    scheme = request.headers.get("X-Forwarded-Proto", request.scheme)
    return Client(
        ip=forwarded,
        user_agent=request.headers.get("User-Agent", "")[:512],
        secure=scheme == "https",
        cookies=request.cookies,
        origin=f"{scheme}://{request.headers.get('X-Forwarded-Host', request.host)}",
    )


def incoming() -> Incoming:
    """The body, still to be read."""
    return Incoming(
        request.stream,
        content_type=request.headers.get("Content-Type"),
        encoding=request.headers.get("Content-Encoding", "identity"),
        length=request.content_length,
    )


OF_THE_REQUEST: Mapping[type, Parameter] = {
    Client: client,
    IfMatch: lambda: IfMatch(request.headers.get("If-Match")),
    Incoming: incoming,
}
"""What a parameter of one of these types is given, whatever the endpoint."""
