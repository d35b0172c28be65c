"""What happens to a request, from its arrival at a service to the answer, by what its endpoint states."""

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from flask import Flask, Response, current_app, g, request
from werkzeug.routing import IntegerConverter

from . import audit
from .body import read_limited
from .codec import decode, encode
from .endpoint import MAX_ID, Endpoint, Reply, is_optional_caller, path_parameters, query_of
from .endpoints import Endpoints
from .errors import Forbidden, Invalid, Malformed, NotFound, ServiceError, Unauthorized
from .models.base import Answer
from .models.common import Detail
from .negotiation import Format, content_type, format_of
from .paging import next_link
from .parameters import OF_THE_REQUEST, Parameter, read_query, single
from .paths import shown
from .policy import Audience, authorize
from .preconditions import IfMatch, conditional
from .tokens import Claims, Tokens, as_bearer, bearer


class _Id(IntegerConverter):
    """A number of no more digits than an id can have; whether it is one the handler says.

    Werkzeug's converter with a ``max`` refuses too late: of a path with several methods it makes a 405.
    """

    regex = rf"\d{{1,{len(str(MAX_ID))}}}"


def bind(app: Flask, endpoints: Endpoints, tokens: Tokens, resources: Mapping[type, Any]) -> None:
    """Register every endpoint with the application. A parameter that nothing provides is a TypeError, at start."""
    app.url_map.converters["id"] = _Id
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
            if hint in OF_THE_REQUEST:
                sources[name] = OF_THE_REQUEST[hint]
            elif hint is endpoint.body:
                sources[name] = self._read_body
            elif hint is endpoint.query:
                sources[name] = self._read_query
            elif hint is Claims or is_optional_caller(hint):
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
        if any(isinstance(part, int) and part > MAX_ID for part in in_path.values()):
            raise NotFound
        try:
            self._admit()
            answer = self._audited(in_path)
        except Forbidden:
            _report_refusal(endpoint, 403)
            raise
        if answer is None:
            return _nothing(endpoint.status)
        response = answer if isinstance(answer, Response) else self._encoded(answer)
        if endpoint.etag:
            response.add_etag()
            conditional(response, request.environ)
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
            _report_refusal(self.endpoint, 401)
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


def _report_refusal(endpoint: Endpoint, status: int) -> None:
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
