"""``If-Match`` and ``If-None-Match``: changing a resource only as it was read, or reading it only where it is another
(section 1 of the contract, RFC 9110 section 13).
"""

from typing import Any
from wsgiref.types import WSGIEnvironment

from flask import Response
from werkzeug.datastructures import ETags
from werkzeug.http import generate_etag, parse_etags

from .codec import encode
from .errors import ServiceError
from .models.base import Answer
from .negotiation import Format


class PreconditionFailed(ServiceError):
    def __init__(self) -> None:
        super().__init__(412)


class IfMatch:
    """What the client says it has read, if it says so."""

    def __init__(self, header: str | None) -> None:
        self._wanted: ETags | None = None if header is None else parse_etags(header)

    def check(self, current: Answer) -> None:
        """Raises :class:`PreconditionFailed` unless ``current`` is what was read, in whichever format.

        To be asked in the transaction that makes the change, of a resource that is locked: of two who have read the
        same, then only one can change it.
        """
        if self._wanted is None or self._wanted.star_tag:
            return
        if not any(self._wanted.contains(generate_etag(encode(current, fmt))) for fmt in Format):
            raise PreconditionFailed


def conditional(response: Response, environ: WSGIEnvironment, **ranges: Any) -> Response:
    """What stands for ``response`` by the preconditions of a ``GET``: itself, or 304. ``ranges`` is for Werkzeug.

    Raises :class:`PreconditionFailed` where Werkzeug would send what was not to be sent with the status 412.
    """
    if environ.get("HTTP_IF_MATCH") == "*":  # which is true of all that there is; Werkzeug takes it for false
        environ = {name: value for name, value in environ.items() if name != "HTTP_IF_MATCH"}
    response.make_conditional(environ, **ranges)
    if response.status_code == 412:
        raise PreconditionFailed
    return response
