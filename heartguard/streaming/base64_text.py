"""Base64 as it comes."""

import binascii
import re
from typing import Protocol

import pybase64

_PART = re.compile(rb"[A-Za-z0-9+/=]*")

PLACEHOLDER = "AAAA"
"""Stands for the text that was there: base64, of something."""

MAX_REST = 1024 * 1024
"""Bytes of all else in the body."""


class Sink(Protocol):
    """Takes what was decoded."""

    def write(self, piece: bytes) -> object: ...

    def restart(self) -> None:
        """Forget what was written: a repetition takes its place."""
        ...


class Base64Text:
    """Decodes text in pieces of any length. What is no base64 is noted, and the rest of it passed over."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._carry = b""
        self._good = True
        self._padded = False
        self.placeholder = ""
        """What takes the text's place: empty only where it is."""

    @property
    def is_good(self) -> bool:
        return self._good and not self._carry

    def restart(self) -> None:
        self._sink.restart()
        self._carry, self._good, self._padded, self.placeholder = b"", True, False, ""

    def feed(self, text: bytes) -> None:
        if text and not self.feed_if_good(text):
            self.placeholder = PLACEHOLDER
            self._good = False

    def feed_if_good(self, text: bytes) -> bool:
        """Decode the text if it is base64, and goes on from what came before; whether it is and does."""
        joined = self._carry + text
        whole = len(joined) & ~3
        if not self._good or (whole and self._padded) or not _PART.fullmatch(joined, whole):
            return False
        try:
            piece = pybase64.b64decode(memoryview(joined)[:whole], validate=True)
        except binascii.Error:
            return False
        self._carry = joined[whole:]
        if text:
            self.placeholder = PLACEHOLDER
        if whole:
            self._padded = joined[whole - 1] == ord("=")
            self._sink.write(piece)
        return True
