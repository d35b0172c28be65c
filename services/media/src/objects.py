"""Serves the files of the local store to whoever has a link."""

import re
from typing import IO

from flask import Response, request
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.wsgi import FileWrapper

from heartguard.errors import NotFound, ServiceError
from heartguard.models.base import Query
from heartguard.preconditions import PreconditionFailed, conditional

from .errors import BadSignature
from .local_store import LocalStore
from .names import ObjectName, disposition

PIECE = 64 * 1024
_SINGLE_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII)


class LinkQuery(Query):
    """What a link says: the last second in which it works (Unix), what is shown, and the proof of it."""

    expires: int = 0
    file_name: str = ""
    content_type: str = ""
    signature: str = ""


class Objects:
    """With another store than the local one there is nothing here."""

    def __init__(self, store: LocalStore | None) -> None:
        self._store = store

    def serve(self, name: ObjectName, query: LinkQuery) -> Response:
        """The file, or the range of it that is asked for. It is saved, not shown, and can do nothing where it is."""
        if self._store is None:
            raise NotFound
        shown = {"file_name": query.file_name, "content_type": query.content_type}
        if not name.is_sound or not self._store.redeem(query.signature, name, expires=query.expires, **shown):
            raise BadSignature
        try:
            file = self._store.open(name)
        except FileNotFoundError:
            raise NotFound from None
        response = Response(FileWrapper(file, PIECE), direct_passthrough=True, content_type=query.content_type)
        response.headers["Content-Disposition"] = disposition(query.file_name)
        response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
        response.set_etag(name.id)  # what an object holds never changes
        return _ranged(response, file)


def _ranged(response: Response, file: IO[bytes]) -> Response:
    """The response to a conditional request, or one for a range."""
    response.content_length = size = file.seek(0, 2)
    file.seek(0)
    environ = {key: value for key, value in request.environ.items() if key != "HTTP_RANGE"}
    if asked := _plain_range(request.headers.get("Range", ""), size):
        environ["HTTP_RANGE"] = asked
    try:
        return conditional(response, environ, accept_ranges=True, complete_length=size)
    except RequestedRangeNotSatisfiable:
        file.close()
        raise ServiceError(416, headers={"Content-Range": f"bytes */{size}"}) from None
    except PreconditionFailed:
        file.close()
        raise


def _plain_range(asked: str, size: int) -> str | None:
    """The range from its first byte on; None for what is none (RFC 9110, section 14.2), or several at once."""
    found = _SINGLE_RANGE.fullmatch(asked)
    first, last = found.groups() if found else ("", "")
    if not first:
        return f"bytes={max(0, size - int(last))}-" if last else None
    return f"bytes={first}-{last}" if not last or int(first) <= int(last) else None
