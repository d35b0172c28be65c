"""Whether content is what it is said to be, and nothing else besides.

The beginning tells what a file is. A file that is two things at once (a picture that is also a
script, say) has something behind its end, or where a comment would be: it is refused. One that is
cut short is not: it may be all that somebody has. It must be good as far as it goes.
"""

import re
from collections.abc import Callable, Mapping

from . import documents, images, jpeg, others, recordings
from .content import Content

Check = Callable[[Content], bool]

_FORMATS: Mapping[str, Check] = {
    "image/png": images.is_png,
    "image/jpeg": jpeg.is_jpeg,
    "image/jpg": jpeg.is_jpeg,
    "image/gif": images.is_gif,
    "image/webp": images.is_webp,
    "image/bmp": images.is_bmp,
    "image/x-ms-bmp": images.is_bmp,
    "image/tiff": images.is_tiff,
    "image/heic": images.is_heif,
    "image/heif": images.is_heif,
    "image/avif": images.is_heif,
    "application/pdf": documents.is_pdf,
    "text/csv": documents.is_csv,
    "application/dicom": documents.is_dicom,
    "application/edf": documents.is_edf,
    "application/x-edf": documents.is_edf,
    "audio/wav": recordings.is_wav,
    "audio/wave": recordings.is_wav,
    "audio/x-wav": recordings.is_wav,
    "audio/vnd.wave": recordings.is_wav,
    "audio/mpeg": recordings.is_mp3,
    "audio/mp3": recordings.is_mp3,
    "audio/ogg": recordings.is_ogg,
    "audio/opus": recordings.is_ogg,
    "audio/flac": recordings.is_flac,
    "audio/x-flac": recordings.is_flac,
    "audio/aac": recordings.is_aac,
    "audio/mp4": recordings.is_mp4,
    "audio/m4a": recordings.is_mp4,
    "audio/x-m4a": recordings.is_mp4,
    "audio/webm": recordings.is_webm,
    "video/mp4": recordings.is_mp4,
    "video/x-m4v": recordings.is_mp4,
    "video/quicktime": recordings.is_quicktime,
    "video/webm": recordings.is_webm,
    "video/x-matroska": recordings.is_webm,
    "video/ogg": recordings.is_ogg,
    "video/mpeg": recordings.is_mpeg,
    "video/x-msvideo": recordings.is_avi,
    "video/avi": recordings.is_avi,
}

_MAY_HOLD_PDF = frozenset({"application/pdf", "application/dicom"})
EDGE = 64 * 1024
"""Bytes at either end in which markup is looked for. Browsers look no further than 1.5 KB to guess what a file is."""
_MARKUP = re.compile(rb"<script|<\?php|<!doctype html", re.IGNORECASE)
_NAME_AND_COMMENT = re.compile(rb"[A-Za-z\xc0-\xff][^\0]{0,15}?/[*/]", re.DOTALL)
_SCRIPT = re.compile(rb"\*/[ \t\r\n]*[=;,.(\[+\-`]|[\r\n;][ \t]*(var|let|const|function)[ \t]")


def media_type(content_type: str) -> str:
    """The media type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def matches(type_: str, content: Content) -> bool:
    """Whether files of the media type are allowed, and the content is one, and nothing else besides."""
    check = _FORMATS.get(type_)
    if check is None:
        return False
    try:
        good = check(content)
    except (IndexError, ValueError):  # it ends where more should come
        return False
    return good and (type_ == "text/csv" or not _is_something_else_too(type_, content))


def _is_something_else_too(type_: str, content: Content) -> bool:
    if type_ not in _MAY_HOLD_PDF and others.is_document_too(content):
        return True
    return _is_script_too(content) or others.is_archive_too(content)


def _is_script_too(content: Content) -> bool:
    """Whether a browser could take it for a page or a script.

    ``GIF89a/*`` and ``RIFF//`` begin a script, of which more follows where the comment ends.
    """
    if _MARKUP.search(content[:EDGE]) or _MARKUP.search(content[-EDGE:]):
        return True
    return _NAME_AND_COMMENT.match(content) is not None and _SCRIPT.search(content) is not None
