"""A service's answer as it comes in, parsed by llhttp."""

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from .headers import Headers, lower

MOST_FRAMING = 64 * 1024
"""Bytes of a head, of trailers, or of chunk headers that bring no data."""

_FRAMING = frozenset({"content-length", "transfer-encoding"})


class Nonsense(ValueError):
    """What came is no answer that could be passed on."""


class Incoming:
    """The answers on one connection, one after the other. ``held`` counts the bytes of the body that are here."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self.expect("")

    def expect(self, method: str) -> None:
        """The next answer is one to ``method``."""
        self.headers: Headers = []
        self._body: list[bytes] = []
        self.held = 0
        self._framing = 0
        self._head_only = method == "HEAD"
        self._begun = self.complete = self._keep = self._surplus = False
        self._until_close = True

    @property
    def status(self) -> int:
        return self._parser.get_status_code()

    @property
    def another_may_follow(self) -> bool:
        return self.complete and self._keep and not (self._surplus or self._head_only)

    def feed(self, received: bytes) -> None:
        """Raises :class:`Nonsense`."""
        held = self.held
        try:
            self._parser.feed_data(received)
        except (HttpParserError, HttpParserUpgrade) as error:
            raise Nonsense(repr(error.__context__ or error)) from error
        self._framing = self._framing + len(received) if self.held == held else 0
        if self._framing > MOST_FRAMING and not self.complete:
            raise Nonsense("too long a head")

    def end(self) -> None:
        """The other side sends no more, which completes an answer that states no length."""
        self.complete = self.complete or (self._begun and self._until_close)
        self._keep = False

    def take(self) -> bytes:
        """The body, as far as it is here."""
        taken = b"".join(self._body)
        self._body.clear()
        self.held = 0
        return taken

    # What the parser calls

    def on_message_begin(self) -> None:
        self._surplus = self.complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._begun:  # else it is a trailer
            self.headers.append((lower(name), value.decode("ascii")))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        if self._parser.get_status_code() < 200:
            self.headers.clear()
            return
        self._begun = True
        for name, value in self.headers:
            if name in _FRAMING:
                self._until_close = False
                if name == "transfer-encoding" and value.lower() != "chunked":
                    raise Nonsense(name)
        if self._head_only:
            self.complete = True

    def on_body(self, piece: bytes) -> None:
        if not (self._head_only or self._surplus):
            self._body.append(piece)
            self.held += len(piece)

    def on_message_complete(self) -> None:
        if self._begun:
            self.complete = True
            self._keep = self._parser.should_keep_alive()
