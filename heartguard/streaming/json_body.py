"""Takes a property of the outermost object out of a JSON text that comes in pieces.

Only strings and brackets are told apart here. Whether it is JSON at all is for the parser to say,
which reads the rest; but of the text that it does not see, what no JSON string may hold is
refused here.
"""

import codecs
import re

import msgspec

from ..errors import Malformed, ServiceError
from .base64_text import MAX_REST, Base64Text

_STRUCTURE = re.compile(rb"[{}\[\]:,]")
_TO_QUOTE = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_TO_END = re.compile(rb'[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*')
_BEGUN_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?")
_ASCII_ESCAPE = re.compile(rb"\\u00([0-7][0-9a-fA-F])")


class JsonBody:
    """``name`` is the property, ``text`` takes what it holds."""

    def __init__(self, name: str, text: Base64Text) -> None:
        self._name = name
        self._text = text
        self._rest = bytearray()
        self._carry = b""
        self._brackets = ""
        self._last = b""
        self._key: str | None = None
        self._read = self._structure
        self._key_begins: int | None = None
        self._utf8 = codecs.getincrementaldecoder("utf-8")()

    def feed(self, piece: bytes) -> None:
        piece, self._carry = self._carry + piece, b""
        position = 0
        while position < len(piece):
            position = self._read(piece, position)
        if len(self._rest) > MAX_REST:
            raise ServiceError(413, f"The body has more than {MAX_REST} bytes besides {self._name}")

    def rest(self) -> bytes:
        """The text with something short in the property's place."""
        return bytes(self._rest)

    def _structure(self, piece: bytes, position: int) -> int:
        """What is between two strings."""
        quote = piece.find(b'"', position)
        end = len(piece) if quote < 0 else quote
        between = piece[position:end]
        self._rest += between
        for mark in _STRUCTURE.findall(between):
            self._note(mark)
        if quote < 0:
            return end
        self._rest += b'"'
        if self._brackets == "{" and self._last == b":" and self._key == self._name:
            self._text.restart()
            self._utf8.reset()
            self._read = self._wanted
        else:
            is_key = self._brackets == "{" and self._last in {b"{", b","}
            self._key_begins = len(self._rest) if is_key else None
            self._read = self._string
        return quote + 1

    def _note(self, mark: bytes) -> None:
        self._last = mark
        if mark in b"{[":
            if len(self._brackets) < 2:
                self._brackets += mark.decode()
            else:
                self._deeper += 1
        elif mark in b"}]":
            if self._deeper:
                self._deeper -= 1
            else:
                self._brackets = self._brackets[:-1]

    _deeper = 0
    """How many brackets are open besides the outer two."""

    def _string(self, piece: bytes, position: int) -> int:
        """A string that is left as it is."""
        found = _TO_QUOTE.match(piece, position)
        assert found is not None
        end = found.end()
        if end == len(piece):
            self._rest += piece[position:end]
        elif piece[end] == ord("\\"):  # the last byte: what it escapes is still to come
            self._rest += piece[position:end]
            self._carry = b"\\"
            end += 1
        else:
            self._rest += piece[position : end + 1]
            self._end_string()
            end += 1
        return end

    def _end_string(self) -> None:
        if self._key_begins is not None:
            self._key = _unescaped(self._rest[self._key_begins - 1 :])
        self._last = b'"'
        self._read = self._structure

    def _wanted(self, piece: bytes, position: int) -> int:
        """The string that the property holds."""
        end = self._easy(piece, position) or self._hard(piece, position)
        if end == len(piece):
            return end
        if piece[end] == ord('"'):
            self._check_utf8(b"", final=True)
            self._rest += f'{self._text.placeholder}"'.encode()
            self._last = b'"'
            self._read = self._structure
            return end + 1
        if _BEGUN_ESCAPE.fullmatch(piece, end):
            self._carry = piece[end:]
            return len(piece)
        raise Malformed("The body is not JSON: a string has a control character or an escape that is none")

    def _easy(self, piece: bytes, position: int) -> int | None:
        """Up to where there is base64 without any escapes, as it nearly always is."""
        quote = piece.find(b'"', position)
        end = len(piece) if quote < 0 else quote
        return end if self._text.feed_if_good(piece[position:end]) else None

    def _hard(self, piece: bytes, position: int) -> int:
        found = _TO_END.match(piece, position)
        assert found is not None
        text = found[0]
        self._check_utf8(text)
        if b"\\" in text:
            text = _ASCII_ESCAPE.sub(lambda escape: bytes([int(escape[1], 16)]), text.replace(b"\\/", b"/"))
        self._text.feed(text)
        return found.end()

    def _check_utf8(self, text: bytes, *, final: bool = False) -> None:
        try:
            self._utf8.decode(text, final)
        except UnicodeDecodeError:
            raise Malformed("The body is not in UTF-8") from None


def _unescaped(literal: bytes | bytearray) -> str | None:
    try:
        return msgspec.json.decode(literal, type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
