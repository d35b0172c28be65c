"""Reads an upload off the wire: JSON or XML with base64 in it, or a form with a file."""

from collections.abc import Iterator

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import NEED_DATA, Data, Event, Field, File, MultipartDecoder

from heartguard.errors import Invalid, Malformed, ServiceError
from heartguard.incoming import Incoming
from heartguard.models.common import Detail
from heartguard.models.media_item import MediaUpload
from heartguard.negotiation import format_of
from heartguard.schema import violations
from heartguard.streaming import decode_stream

from . import names
from .spool import Spool

FORM = "multipart/form-data"
FORM_SCHEMA = {
    "type": "object",
    "properties": {"file": {"type": "string", "format": "binary", "description": "With its name and type"}},
    "required": ["file"],
    "additionalProperties": False,
}
MAX_PARTS = 10
MAX_PART_HEAD = 1024 * 1024
"""Bytes of a form that may wait for the rest of a head."""
_SOME_BASE64 = "AAAA"


def read_upload(incoming: Incoming, content: Spool, limit: int) -> MediaUpload:
    """Write the file to ``content``; what is said of it is the answer, whose ``data_base64`` means nothing.

    ``limit`` is in bytes of the body. What is left of one that is refused is taken off the connection.
    """
    try:
        upload = _read(incoming, content, limit)
    except ServiceError:
        incoming.discard(limit)
        raise
    found = []
    if problem := names.problem(upload.file_name):
        found.append(Detail(path="/file_name", message=problem))
    if not content.size:
        found.append(
            Detail(path="/file" if incoming.media_type == FORM else "/data_base64", message="must not be empty")
        )
    if found:
        raise Invalid(found)
    return upload


def _read(incoming: Incoming, content: Spool, limit: int) -> MediaUpload:
    if incoming.media_type == FORM:
        return _read_form(incoming, content, limit)
    fmt = format_of(incoming.content_type)
    return decode_stream(incoming.chunks(limit), fmt, MediaUpload, "data_base64", content)


def _read_form(incoming: Incoming, content: Spool, limit: int) -> MediaUpload:
    said: dict[str, str] | None = None
    found: list[Detail] = []
    taking = False
    for event in _events(incoming, limit):
        match event:
            case File(name="file") if said is None:
                said, taking = _said(event), True
            case File() | Field():
                found.append(Detail(path=f"/{str(event.name)[:100]}", message=_unexpected(event)))
                taking = False
            case Data() if taking:
                content.write(event.data)
    if said is None and not found:
        found.append(Detail(path="/file", message="is missing"))
    elif said is not None:
        found += violations({**said, "data_base64": _SOME_BASE64}, MediaUpload)
    if found or said is None:
        raise Invalid(found)
    return MediaUpload(**said, data_base64=_SOME_BASE64)


def _said(part: File) -> dict[str, str]:
    """What the head of the file's part says of it."""
    content_type = part.headers.get("Content-Type")
    said = {"file_name": part.filename}
    return said if content_type is None else {**said, "content_type": content_type}


def _unexpected(event: File | Field) -> str:
    if event.name != "file":
        return "is not known here"
    return "must be given once" if isinstance(event, File) else "must have a file name"


def _events(incoming: Incoming, limit: int) -> Iterator[Event]:
    """The parts of the form as they come."""
    boundary = incoming.options.get("boundary", "")
    if not boundary or not boundary.isascii():
        raise Malformed("The form states no boundary")
    decoder = MultipartDecoder(boundary.encode(), MAX_PART_HEAD, max_parts=MAX_PARTS)
    try:
        for piece in incoming.chunks(limit):
            decoder.receive_data(piece)
            while (event := decoder.next_event()) is not NEED_DATA:
                yield event
        decoder.receive_data(None)
        decoder.next_event()  # a ValueError where the form's end has not come
    except RequestEntityTooLarge:
        raise ServiceError(413, f"The form has more than {MAX_PARTS} parts, or one of too long a head") from None
    except ValueError as error:
        raise Malformed("The form cannot be read") from error
