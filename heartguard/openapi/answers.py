"""What an operation can answer."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from ..endpoint import Endpoint, path_parameters
from ..errors import MESSAGES
from ..models.common import Error
from ..negotiation import Format
from ..policy import Audience
from .components import PLACE, reference
from .examples import Examples

_HEADERS = {
    401: {"WWW-Authenticate": "`Bearer`"},
    429: {"Retry-After": "Seconds to wait"},
    503: {"Retry-After": "Seconds to wait"},
}

GENERAL = (400, 401, 403, 404, 406, 408, 412, 413, 414, 415, 422, 429, 431, 502, 503, 504, 505)
"""The statuses of errors that are described once for all operations."""

_WORDS = {
    408: "The request did not come in time",
    414: "The address is too long",
    431: "The headers are too many, or too long",
    505: "The gateway speaks HTTP/1.1",
}

_UNREAD = frozenset({431})
"""Of a head that the gateway has not read: so it cannot know that one of InfluxDB's clients is to have its terms."""
_WITHOUT_CONTENT = frozenset({204, 304})


def error_responses() -> dict[str, Any]:
    """The components that operations refer to."""
    described: dict[str, Any] = {}
    for kind in ("Error", "InfluxError"):
        described |= {
            f"{kind}{status}": _error(status, MESSAGES.get(status) or _WORDS[status], kind)
            for status in GENERAL
            if kind == "Error" or status not in _UNREAD
        }
        described[kind] = _error(None, "Any other failure", kind)
    return described


def responses(endpoint: Endpoint, examples: Examples) -> dict[str, Any]:
    """By status: the answer, what stands for it, and the failures."""
    found = {status: _success(endpoint, status, examples) for status in (endpoint.status, *endpoint.statuses)}
    if endpoint.etag and endpoint.method == "GET":
        found[304] = {"description": "Nothing has changed since"}
    kind = "InfluxError" if endpoint.influx_errors else "Error"
    for status in _failures(endpoint):
        if status in found:
            found[status] = _either(found[status])
        elif status in endpoint.errors:
            found[status] = _error(status, endpoint.errors[status], kind)
        else:
            found[status] = {"$ref": f"#/components/responses/{'Error' if status in _UNREAD else kind}{status}"}
    return {
        **{str(status): found[status] for status in sorted(found)},
        "default": {"$ref": f"#/components/responses/{kind}"},
    }


def _failures(endpoint: Endpoint) -> set[int]:
    """Statuses of errors that the kit or the gateway can give for such an endpoint, and those it states itself."""
    return {*endpoint.errors, *_of_the_request(endpoint), *_on_the_way(endpoint)}


def _of_the_request(endpoint: Endpoint) -> Iterator[int]:
    parameters = path_parameters(endpoint.path)
    if endpoint.body:
        yield from (415, 422)
    if endpoint.query:
        yield 422
    if parameters:
        yield 404
    if endpoint.etag:
        yield 412
    if not endpoint.produces:
        yield 406


def _on_the_way(endpoint: Endpoint) -> Iterator[int]:
    yield from (400, 408, 414, 429, 431, 503, 505)
    if endpoint.audience is not Audience.PUBLIC or endpoint.optional_caller:
        yield from (401, 403)
    if endpoint.service.name != "gateway":
        yield from (502, 504)
        if endpoint.method != "GET":  # one that nobody wants may come all the same
            yield 413


def _success(endpoint: Endpoint, status: int, examples: Examples) -> dict[str, Any]:
    response: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if headers := _headers({**_version(endpoint), **_next_page(endpoint)}):
        response["headers"] = headers
    if endpoint.answer:
        response["content"] = {
            fmt.value: {"schema": reference(endpoint.answer), "examples": examples.answers(endpoint.answer, fmt)}
            for fmt in Format
        }
    elif status not in _WITHOUT_CONTENT:
        response["content"] = {endpoint.produces or "*/*": {}}
    return response


def _version(endpoint: Endpoint) -> dict[str, str]:
    return {"ETag": "The version of the resource"} if endpoint.etag else {}


def _next_page(endpoint: Endpoint) -> dict[str, str]:
    paged = endpoint.query is not None and "cursor" in endpoint.query.__struct_fields__
    return {"Link": 'The next page, `rel="next"`, where there is one'} if paged else {}


def _either(response: dict[str, Any]) -> dict[str, Any]:
    """The answer, or else an error of the same status."""
    content = {
        fmt.value: {**stated, "schema": {"anyOf": [stated["schema"], _schema(fmt, "Error")]}}
        for fmt, stated in ((fmt, response["content"][fmt.value]) for fmt in Format)
    }
    return {**response, "content": content}


def _error(status: int | None, description: str, kind: str) -> dict[str, Any]:
    """``kind`` is ``Error``, or ``InfluxError`` where InfluxDB's clients write."""
    content = {fmt.value: {"schema": _schema(fmt, kind)} for fmt in Format}
    headers = _headers(_HEADERS.get(status or 0, {}))
    return {"description": description, **({"headers": headers} if headers else {}), "content": content}


def _schema(fmt: Format, kind: str) -> dict[str, str]:
    return {"$ref": f"{PLACE}{kind}Response"} if fmt is Format.JSON else reference(Error)


def _headers(described: dict[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in described.items()}
