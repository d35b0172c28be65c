"""One statement per endpoint.

A view's decorator and signature say once what the endpoint is: method and path, request type,
answer type, who may call it, what the audit trail calls it. Parsing, validation, negotiation,
authorization, the routes the gateway enforces and the published schemas all come from here.

A parameter is, by its type: the request body (a :class:`Request`, or an :class:`Incoming` where the
view reads it itself), the query string (a :class:`Query`), the caller (``Claims``, or ``Claims |
None`` where signing in is optional), where the request came from (:class:`Client`), as what the
resource was read (:class:`IfMatch`), a part of the path (by its name), or else a resource that the
application was made with. The answer is an
:class:`Answer`, one in a :class:`Reply` that adds status or headers, ``None`` (204), or a ready
Flask response.
"""

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Generic, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from flask import Response

from .models.base import Answer, Query, Request
from .policy import Audience
from .services import Service
from .tokens import Claims

DEFAULT_MAX_BODY = 64 * 1024
MAX_ID = 2**31 - 1
"""The largest number that can be an id: PostgreSQL's ``integer``."""

A = TypeVar("A", bound=Answer)
T = TypeVar("T")


@dataclass(frozen=True)
class Reply(Generic[A]):
    """An answer whose status or headers depend on what happened; ``status`` is the stated one where it is left out."""

    answer: A
    status: int | None = None
    headers: Mapping[str, str] | None = None


View = Callable[..., Answer | Reply[Any] | Response | None]
Reader = Callable[[bytes, Any], Request]
"""Reads a body of a further media type; its second parameter is the :class:`Query` that goes with it."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """What an endpoint states about itself."""

    service: Service
    method: str
    path: str
    audience: Audience
    view: View
    name: str
    body: type[Request] | None
    query: type[Query] | None
    answer: type[Answer] | None
    optional_caller: bool
    status: int
    audit: str | None
    etag: bool
    max_body: int
    also: Mapping[str, Reader]
    produces: str | None
    token_scheme: bool
    influx_errors: bool
    statuses: Collection[int]
    errors: Mapping[int, str]
    accepts: Mapping[str, Any]
    upload: bool

    @property
    def rule(self) -> str:
        """The path as Flask writes it, with converters taken from the signature."""
        hints = get_type_hints(self.view)
        converters = {int: "id:", str: "", uuid.UUID: "uuid:"}
        path = self.path
        for name in path_parameters(path):
            path = path.replace(f"{{{name}}}", f"<{converters.get(hints[name], '')}{name}>")
        return path


def path_parameters(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


def is_optional_caller(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType) and set(get_args(hint)) == {Claims, NoneType}


class Signature(NamedTuple):
    """What a view's parameters and what it returns say of its endpoint; ``status`` is the one of its answer."""

    body: type[Request] | None
    query: type[Query] | None
    answer: type[Answer] | None
    optional_caller: bool
    status: int


def signature(view: View) -> Signature:
    hints = get_type_hints(view)
    returned = hints.pop("return")
    if get_origin(returned) is Reply:
        (returned,) = get_args(returned)
    return Signature(
        body=_first(hints.values(), Request),
        query=_first(hints.values(), Query),
        answer=_first([returned], Answer),
        optional_caller=any(map(is_optional_caller, hints.values())),
        status=204 if returned in (None, NoneType) else 200,
    )


def query_of(reader: Reader) -> type[Query]:
    """The query string that goes with a body of a further media type. A reader without one is a TypeError."""
    if found := _first(get_type_hints(reader).values(), Query):
        return found
    raise TypeError(f"{reader} has no parameter that is a Query")


def _first(hints: Iterable[Any], base: type[T]) -> type[T] | None:
    """The first of them that is such a type."""
    return next((hint for hint in hints if isinstance(hint, type) and issubclass(hint, base)), None)
