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

import inspect
import uuid
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from flask import Flask, Response, current_app, g, request
from werkzeug.datastructures import MultiDict

from . import audit, metrics
from .codec import decode, encode
from .context import Client
from .errors import Forbidden, Invalid, Malformed, ServiceError, Unauthorized
from .incoming import Incoming
from .models.base import Answer, Request
from .models.base import Query as Query
from .models.common import Detail, Health, Ready
from .negotiation import Format, content_type, format_of
from .paging import next_link
from .paths import shown
from .policy import Audience, authorize
from .preconditions import IfMatch
from .probe import Probe
from .services import SERVICES, Service
from .settings import UploadSettings, load
from .tokens import Claims, Tokens, as_bearer, bearer

DEFAULT_MAX_BODY = 64 * 1024
MAX_ID = 2**31 - 1
"""The largest number that can be an id: PostgreSQL's ``integer``."""

A = TypeVar("A", bound=Answer)


@dataclass(frozen=True)
class Reply(Generic[A]):
    """An answer whose status or headers depend on what happened; ``status`` is the stated one where it is left out."""

    answer: A
    status: int | None = None
    headers: Mapping[str, str] | None = None


View = Callable[..., Answer | Reply[Any] | Response | None]
Reader = Callable[[bytes, Any], Request]
"""Reads a body of a further media type; its second parameter is the :class:`Query` that goes with it."""
Parameter = Callable[[], Any]


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
    statuses: Collection[int]
    errors: Mapping[int, str]
    accepts: Mapping[str, Any]
    upload: bool

    @property
    def rule(self) -> str:
        """The path as Flask writes it, with converters taken from the signature."""
        hints = get_type_hints(self.view)
        converters = {int: f"int(max={MAX_ID}):", str: "", uuid.UUID: "uuid:"}
        path = self.path
        for name in path_parameters(path):
            path = path.replace(f"{{{name}}}", f"<{converters.get(hints[name], '')}{name}>")
        return path


def path_parameters(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


class Endpoints:
    """The endpoints of one service, in the order they are stated."""

    def __init__(self, service: str) -> None:
        self.service = SERVICES[service]
        self._stated: list[Endpoint] = []
        if service != "gateway":
            _state_operations(self)

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._stated)

    def get(self, path: str, *, audience: Audience, **options: Any) -> Callable[[View], View]:
        return self._state("GET", path, audience, **options)

    def post(self, path: str, *, audience: Audience, **options: Any) -> Callable[[View], View]:
        return self._state("POST", path, audience, **options)

    def put(self, path: str, *, audience: Audience, **options: Any) -> Callable[[View], View]:
        return self._state("PUT", path, audience, **options)

    def delete(self, path: str, *, audience: Audience, **options: Any) -> Callable[[View], View]:
        return self._state("DELETE", path, audience, **options)

    def _state(
        self,
        method: str,
        path: str,
        audience: Audience,
        *,
        status: int | None = None,
        audit: str | None = None,
        etag: bool = False,
        max_body: int = DEFAULT_MAX_BODY,
        also: Mapping[str, Reader] | None = None,
        produces: str | None = None,
        token_scheme: bool = False,
        statuses: Collection[int] = (),
        errors: Mapping[int, str] | None = None,
        upload: type[Request] | None = None,
        accepts: Mapping[str, Any] | None = None,
    ) -> Callable[[View], View]:
        """``also`` reads further media types into the request type; ``max_body`` is in bytes, after unpacking.

        ``upload`` is the request type of a view that reads the body itself (an :class:`Incoming`), of up to
        ``UploadSettings.max_upload_body`` bytes; ``accepts`` are the further media types that it reads, each
        with its JSON Schema.

        ``etag`` is for a single resource: its answer carries an ETag, and ``If-None-Match`` can make it a 304. A
        ``PUT`` of one has to take an :class:`IfMatch`.
        ``produces`` is the one media type of a ready Flask response; with ``token_scheme``, ``Authorization`` may
        also say ``Token``. ``statuses`` are those, beside ``status``,
        that the answer can come with; ``errors`` says of failures of the endpoint's own when they happen.
        """

        def decorate(view: View) -> View:
            hints = get_type_hints(view)
            returned = hints.pop("return")
            if get_origin(returned) is Reply:
                (returned,) = get_args(returned)
            body = [h for h in hints.values() if isinstance(h, type) and issubclass(h, Request)]
            query = [h for h in hints.values() if isinstance(h, type) and issubclass(h, Query)]
            self._stated.append(
                Endpoint(
                    service=self.service,
                    method=method,
                    path=path,
                    audience=audience,
                    view=view,
                    name=view.__name__,
                    body=upload or (body[0] if body else None),
                    query=query[0] if query else None,
                    answer=returned if isinstance(returned, type) and issubclass(returned, Answer) else None,
                    optional_caller=any(_is_optional_caller(h) for h in hints.values()),
                    status=status or (204 if returned in (None, NoneType) else 200),
                    audit=audit,
                    etag=etag,
                    max_body=load(UploadSettings, {}).max_upload_body if upload else max_body,
                    also=also or {},
                    produces=produces,
                    token_scheme=token_scheme,
                    statuses=statuses,
                    errors=errors or {},
                    accepts=accepts or {},
                    upload=upload is not None,
                )
            )
            return view

        return decorate


def _state_operations(endpoints: Endpoints) -> None:
    """``/health``, ``/ready`` and ``/metrics`` under the service's path."""
    path = endpoints.service.path

    @endpoints.get(f"{path}/health", audience=Audience.PUBLIC)
    def health(probe: Probe) -> Health:
        """The process lives."""
        return probe.health()

    @endpoints.get(f"{path}/ready", audience=Audience.INTERNAL, statuses=[503])
    def ready(probe: Probe) -> Reply[Ready]:
        """Whether everything that the service needs answers.

        503 where it cannot do its work; ``degraded`` where it can, but something is away.
        """
        return ready_reply(probe)

    @endpoints.get(f"{path}/metrics", audience=Audience.INTERNAL, produces=metrics.MEDIA_TYPE)
    def expose() -> Response:
        """Metrics in Prometheus's text format."""
        body, media_type = metrics.exposition()
        return Response(body, content_type=media_type)


def ready_reply(probe: Probe) -> Reply[Ready]:
    found = probe.ready()
    return Reply(found, 503 if found.status == "unavailable" else 200)


def _is_optional_caller(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType) and set(get_args(hint)) == {Claims, NoneType}


def bind(app: Flask, endpoints: Endpoints, tokens: Tokens, resources: Mapping[type, Any]) -> None:
    """Register every endpoint with the application. A parameter that nothing provides is a TypeError, at start."""
    for endpoint in endpoints:
        if endpoint.audit and not audit.is_installed(app):
            raise TypeError(f"{endpoint.name}: there is no audit trail for {endpoint.audit}")
        app.add_url_rule(
            endpoint.rule,
            endpoint=endpoint.name,
            view_func=_Handler(endpoint, tokens, resources),
            methods=[endpoint.method],
        )
    app.extensions["heartguard.endpoints"] = endpoints


class _Handler:
    """Does for one endpoint, in order: authentication, authorization, reading, the view, answering."""

    # Flask looks these up on a view function.
    provide_automatic_options = False

    def __init__(self, endpoint: Endpoint, tokens: Tokens, resources: Mapping[type, Any]) -> None:
        self.endpoint = endpoint
        self.__name__ = endpoint.name
        self._tokens = tokens
        self._queries = {media_type: query_of(reader) for media_type, reader in endpoint.also.items()}
        self._sources = self._plan(resources)

    def _plan(self, resources: Mapping[type, Any]) -> dict[str, Parameter]:
        endpoint = self.endpoint
        hints = get_type_hints(endpoint.view)
        in_path = set(path_parameters(endpoint.path))
        sources: dict[str, Parameter] = {}
        for name in inspect.signature(endpoint.view).parameters:
            hint = hints[name]
            if name in in_path:
                continue
            if hint in _OF_THE_REQUEST:
                sources[name] = _OF_THE_REQUEST[hint]
            elif hint is endpoint.body:
                sources[name] = self._read_body
            elif hint is endpoint.query:
                sources[name] = self._read_query
            elif hint is Claims or _is_optional_caller(hint):
                sources[name] = lambda: g.caller
            elif hint in resources:
                sources[name] = _constant(resources[hint])
            else:
                raise TypeError(f"{endpoint.name}: nothing provides the parameter {name}: {hint}")
        if endpoint.etag and endpoint.method == "PUT" and IfMatch not in hints.values():
            raise TypeError(f"{endpoint.name} takes no IfMatch")
        return sources

    def __call__(self, **in_path: Any) -> Response:
        endpoint = self.endpoint
        g.audit_action = endpoint.audit
        try:
            self._admit()
            answer = self._audited(in_path)
        except Forbidden:
            report_refusal(endpoint, 403)
            raise
        if answer is None:
            return _nothing(endpoint.status)
        response = answer if isinstance(answer, Response) else self._encoded(answer)
        if endpoint.etag:
            response.add_etag()
            response.make_conditional(request)
        return response

    def _encoded(self, answer: Answer | Reply[Any]) -> Response:
        reply = answer if isinstance(answer, Reply) else Reply(answer)
        fmt: Format = g.format.value
        status = reply.status or self.endpoint.status
        response = Response(encode(reply.answer, fmt), status, reply.headers, content_type=fmt.value)
        if link := next_link(reply.answer, request.path, request.args):
            response.headers["Link"] = link
        return response

    def _audited(self, in_path: Mapping[str, Any]) -> Any:
        """What the view returns, once the audit trail has what the endpoint states."""
        stated = self.endpoint.audit
        if not self.endpoint.produces:
            g.format.require()
        if stated:
            audit.trail().check()
        answer = self.endpoint.view(**{name: read() for name, read in self._sources.items()}, **in_path)
        if stated and not g.get("audit_recorded"):
            audit.emit()
        return answer

    def _admit(self) -> None:
        """Find out who calls, and whether he may."""
        try:
            g.caller = self._authenticate()
            if self.endpoint.audience is not Audience.INTERNAL:  # that one the gateway keeps for admins
                authorize(self.endpoint.audience, g.caller)
        except Unauthorized:
            report_refusal(self.endpoint, 401)
            raise

    def _authenticate(self) -> Claims | None:
        audience = self.endpoint.audience
        if audience is Audience.INTERNAL or (audience is Audience.PUBLIC and not self.endpoint.optional_caller):
            return None
        authorization = request.headers.get("Authorization")
        if self.endpoint.token_scheme:
            authorization = as_bearer(authorization)
        if authorization is None:
            if self.endpoint.optional_caller:
                return None
            raise Unauthorized
        return self._tokens.verify(bearer(authorization))

    def _read_body(self) -> Any:
        endpoint = self.endpoint
        assert endpoint.body is not None
        header = request.headers.get("Content-Type")
        args = single(request.args)
        body = read_limited(endpoint.max_body)
        if not body and header is None:
            raise Malformed("The body is missing")
        media_type, charset = content_type(header)
        if reader := endpoint.also.get(media_type):
            if charset not in {"utf-8", "utf8"}:
                raise ServiceError(415)
            return reader(body, read_query(args, self._queries[media_type]))
        if args and endpoint.query is None:
            raise Invalid([Detail(path=f"?{name[:100]}", message="is not known here") for name in args])
        return decode(body, format_of(header), endpoint.body)

    def _read_query(self) -> Any:
        assert self.endpoint.query is not None
        return read_query(single(request.args), self.endpoint.query)


def report_refusal(endpoint: Endpoint, status: int) -> None:
    """Tell the audit trail of an attempt that was refused."""
    if audit.is_installed(current_app):
        method, route, path = endpoint.method, endpoint.path, shown(request.path, endpoint.path)
        audit.emit("ACCESS_DENIED", outcome="denied", method=method, route=route, path=path, status=status)


def _nothing(status: int) -> Response:
    response = Response(status=status)
    del response.headers["Content-Type"]
    return response


def _constant(value: Any) -> Parameter:
    return lambda: value


def query_of(reader: Reader) -> type[Query]:
    """The query string that goes with a body of a further media type. A reader without one is a TypeError."""
    for hint in get_type_hints(reader).values():
        if isinstance(hint, type) and issubclass(hint, Query):
            return hint
    raise TypeError(f"{reader} has no parameter that is a Query")


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


_OF_THE_REQUEST: Mapping[type, Parameter] = {
    Client: client,
    IfMatch: lambda: IfMatch(request.headers.get("If-Match")),
    Incoming: incoming,
}
"""What a parameter of one of these types is given, whatever the endpoint."""


def read_limited(limit: int) -> bytes:
    """The request's body, unpacked where it is gzip; more than ``limit`` bytes is a 413, before they are in memory."""
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", ""}:
        raise ServiceError(415, "Content-Encoding can be gzip or identity")
    request.max_content_length = limit
    body = request.stream.read(limit + 1)
    if len(body) > limit:
        raise ServiceError(413)
    if len(body) < (request.content_length or 0):  # the web server reports a broken connection as the body's end
        raise Malformed("The body is shorter than its Content-Length")
    if encoding == "gzip":
        return gunzip(body, limit)
    return body


def gunzip(packed: bytes, limit: int) -> bytes:
    """Unpack at most ``limit`` bytes."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        body = unpacker.decompress(packed, limit + 1)
    except zlib.error:
        raise Malformed("The body is not gzip") from None
    if len(body) > limit:
        raise ServiceError(413)
    if not unpacker.eof or unpacker.unused_data:
        raise Malformed("The gzip body is cut short or has something behind its end")
    return body


def endpoints_of(app: Flask | None = None) -> Endpoints:
    """The endpoints that an application was made with."""
    found: Endpoints = (app or current_app).extensions["heartguard.endpoints"]
    return found
