"""The WSGI layer round Flask: every request of a service's path is dealt with here, all else by Flask.

Flask's request machinery costs more than everything that a proxied request needs (see the
benchmarks), so none of it is on this path. The order of work is the contract's: request ids, CORS
preflight, rate limit, token, revocation, policy, proxy, audit event, log.
"""

from collections.abc import Iterable, Mapping, Set
from http import HTTPStatus
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication

from heartguard.codec import encode_error
from heartguard.errors import ServiceError
from heartguard.logs import log
from heartguard.services import SERVICES

from .addresses import Addresses
from .answers import Answer, Stream, is_error_of_ours
from .bodies import NONE, expected_length, receive
from .cors import Cors
from .guard import Guard
from .headers import VARY, from_client, from_service, merge_vary
from .reports import Reports
from .routes import Routes, is_proxied
from .upstream import Upstream
from .visit import Visit

PREFIX = SERVICES["gateway"].prefix

_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_WITHOUT_BODY = frozenset({204, 304})

VISIT = "heartguard.visit"
REFUSED = "heartguard.refused"
BODY = "heartguard.body"
"""What may stand in the environ: the visit of an admitted request, why one is refused, the body already received."""

_BODILESS = frozenset({"GET", "HEAD"})

Headers = list[tuple[str, str]]


class Proxy:
    """The gateway as a WSGI application. Thread-safe."""

    def __init__(
        self,
        flask: WSGIApplication,
        *,
        own_paths: Set[str],
        routes: Routes,
        addresses: Addresses,
        cors: Cors,
        guard: Guard,
        upstreams: Mapping[str, Upstream],
        reports: Reports,
    ) -> None:
        self._flask = flask
        self._own_paths = own_paths
        self._routes = routes
        self._addresses = addresses
        self._cors = cors
        self._guard = guard
        self._upstreams = upstreams
        self._reports = reports

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        visit = environ.get(VISIT) or Visit(environ, self._addresses)
        try:
            if refused := environ.get(REFUSED):
                raise refused
            if visit.method == "OPTIONS":
                headers = [*visit.headers(), *self._cors.preflight(visit.origin)]
                return self._finish(visit, 204, headers, b"", start_response)
            if not is_proxied(visit.path):
                return self._to_flask(visit, start_response)
            answer = self._proxied(visit)
            headers = from_service(answer.headers)
        except ServiceError as error:
            return self._refuse(visit, error, start_response)
        except Exception as error:  # noqa: BLE001 - whatever happens, the client gets the contract's error
            log.error("failure", status=500, request_id=visit.request_id, exc_info=error)
            return self._refuse(visit, ServiceError(500), start_response)
        headers += visit.headers()
        headers += self._cors.actual(visit.origin)
        if answer.rest is not None:
            return self._stream(visit, answer, headers, start_response)
        if visit.method == "HEAD":
            headers += [pair for pair in answer.headers if pair[0] == "content-length"]
        return self._finish(visit, answer.status, headers, answer.body, start_response)

    def admit(self, environ: dict[str, Any]) -> int:
        """How many bytes of body to receive before the call: 0 for a request that has none, or that is refused."""
        visit = environ[VISIT] = Visit(environ, self._addresses)
        if visit.method == "OPTIONS" or not is_proxied(visit.path):
            return 0
        try:
            return self._admit(visit)
        except ServiceError as error:
            environ[REFUSED] = error
        except Exception as error:  # noqa: BLE001 - as in the call
            log.error("failure", status=500, request_id=visit.request_id, exc_info=error)
            environ[REFUSED] = ServiceError(500)
        return 0

    def _admit(self, visit: Visit) -> int:
        """Let the request in, or raise; the length of its body."""
        try:
            template, visit.target = self._routes.find(visit.path)
            route = template.route(visit.method)
            visit.check_host()
        except ServiceError:
            self._guard.limit(visit)
            raise
        visit.route = route
        if query := visit.environ.get("QUERY_STRING"):
            visit.target = f"{visit.target}?{query}"

        def prepare() -> None:
            visit.passed = from_client(visit.environ, authorization=route.reads_token)
            visit.passed += self._own_headers(visit)

        self._guard.admit(
            visit,
            route.audience,
            optional_caller=route.optional_caller,
            strict=route.stricter,
            meanwhile=prepare,
        )
        if visit.passed is None:
            prepare()
        return 0 if visit.method in _BODILESS else expected_length(visit.environ, route.body_limit)

    def _proxied(self, visit: Visit) -> Answer:
        length = 0 if VISIT in visit.environ else self._admit(visit)
        assert visit.route is not None
        assert visit.passed is not None
        body = visit.environ.get(BODY) or (NONE if visit.method in _BODILESS else receive(visit.environ, length))
        try:
            answer = self._upstreams[visit.route.service].send(visit.method, visit.target, visit.passed, body)
        finally:
            body.close()
        visit.upstream_seconds = answer.seconds
        if answer.status >= 400 and visit.method != "HEAD" and not is_error_of_ours(answer):
            if answer.rest is not None:
                answer.rest.close()
            raise ServiceError(502 if answer.status >= 500 else answer.status)
        return answer

    def _own_headers(self, visit: Visit) -> Headers:
        """What the services may trust, because only the gateway says it."""
        environ = visit.environ
        scheme, host = environ["wsgi.url_scheme"], environ.get("HTTP_HOST", "")
        if self._addresses.trusts(environ.get("REMOTE_ADDR", "")):
            forwarded = environ.get("HTTP_X_FORWARDED_PROTO", scheme)
            scheme = forwarded if forwarded in {"http", "https"} else scheme
            host = environ.get("HTTP_X_FORWARDED_HOST", host)
        return [
            ("x-request-id", visit.request_id),
            ("x-gateway-request-id", visit.gateway_id),
            ("traceparent", visit.trace),
            ("x-forwarded-for", visit.address.ip),
            ("x-forwarded-proto", scheme),
            ("x-forwarded-host", host),
        ]

    def _finish(
        self, visit: Visit, status: int, headers: Headers, body: bytes, start_response: StartResponse
    ) -> list[bytes]:
        start_response(_STATUS_LINES.get(status) or f"{status} Unknown", headers)
        self._reports.report(visit, status)
        return [body] if status not in _WITHOUT_BODY else []

    def _refuse(self, visit: Visit, error: ServiceError, start_response: StartResponse) -> list[bytes]:
        if error.status >= 500:
            log.warning("refused", status=error.status, request_id=visit.request_id, error=repr(error.__cause__))
        fmt = visit.format
        body = encode_error(error.body(PREFIX, visit.request_id), fmt)
        headers = [
            ("Content-Type", fmt.value),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Vary", VARY),
            ("X-Content-Type-Options", "nosniff"),
            *error.headers.items(),
            *visit.headers(),
            *self._cors.actual(visit.origin),
        ]
        return self._finish(visit, error.status, headers, b"" if visit.method == "HEAD" else body, start_response)

    def _stream(self, visit: Visit, answer: Answer, headers: Headers, start_response: StartResponse) -> Iterable[bytes]:
        assert answer.rest is not None
        if not any(name == "transfer-encoding" for name, _ in answer.headers):
            headers += [pair for pair in answer.headers if pair[0] == "content-length"]
        start_response(_STATUS_LINES.get(answer.status) or f"{answer.status} Unknown", headers)
        return Stream(answer.body, answer.rest, lambda: self._reports.report(visit, answer.status))

    def _to_flask(self, visit: Visit, start_response: StartResponse) -> Iterable[bytes]:
        """Let Flask answer, under the same request id; what nobody stated counts against the limit."""
        if visit.path not in self._own_paths:
            self._guard.limit(visit)
        visit.environ["HTTP_X_REQUEST_ID"] = visit.request_id
        added = [("X-Gateway-Request-ID", visit.gateway_id), *self._cors.actual(visit.origin)]
        if visit.taken is not None:
            added += visit.taken.headers()

        def start(status: str, headers: Headers, *exc_info: Any) -> Any:
            theirs = ", ".join(value for name, value in headers if name.lower() == "vary")
            kept = [pair for pair in headers if pair[0].lower() != "vary"]
            return start_response(status, [*kept, ("Vary", merge_vary(VARY, theirs)), *added], *exc_info)

        return self._flask(visit.environ, start)
