"""Takes a property of the outermost type out of an XML document that comes in pieces."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from lxml import etree
from lxml.etree import _Element as Element

from ..errors import Malformed, ServiceError
from ..xml.document import check_before_root, new_parser, refusal
from .base64_text import MAX_REST, Base64Text

HEAD = 64 * 1024
"""Bytes in which a document has to begin its root."""
MAX_ELEMENTS = 1000


class XmlBody:
    """``name`` is the property, ``text`` takes what it holds."""

    def __init__(self, name: str, text: Base64Text) -> None:
        self._head: bytes | None = b""
        self._target = _Target(name, text)
        self._parser = new_parser(target=self._target)

    def feed(self, piece: bytes) -> None:
        if self._head is not None:
            self._head += piece
            if len(self._head) < HEAD:
                return
            piece = self._checked_head()
        self._parse(piece)

    def root(self) -> Element:
        """The document with something short in the property's place."""
        if self._head is not None:
            self._parse(self._checked_head())
        with self._errors():
            root: Element = self._parser.close()
        return root

    def _checked_head(self) -> bytes:
        """What came so far, in which there is no document type. No entity, therefore, ever reaches the parser."""
        head, self._head = self._head or b"", None
        if not head.strip():
            raise Malformed("The body is empty")
        check_before_root(head)
        return head

    def _parse(self, piece: bytes) -> None:
        with self._errors():
            self._parser.feed(piece)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """The parser may report what the target raised as an error in the document."""
        try:
            yield
        except etree.XMLSyntaxError as error:
            raise self._target.refused or refusal(error) from None


class _Target:
    """Builds the tree, but for the property's text."""

    def __init__(self, name: str, text: Base64Text) -> None:
        self._name = name
        self._text = text
        self._builder = etree.TreeBuilder()
        self._depth = 0
        self._elements = 0
        self._size = 0
        self._inside = False
        self.refused: ServiceError | None = None

    def start(self, tag: str, attrs: dict[str, str]) -> None:
        self._depth += 1
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            self._refuse(ServiceError(413, f"The body has more than {MAX_ELEMENTS} elements"))
        self._grow(sum(len(key) + len(value) for key, value in attrs.items()))
        self._builder.start(tag, attrs)
        self._inside = self._depth == 2 and tag.rpartition("}")[2] == self._name
        if self._inside:
            self._text.restart()

    def data(self, text: str) -> None:
        if self._inside and self._depth == 2:
            try:
                self._text.feed(text.encode())
            except ServiceError as error:
                self._refuse(error)
        else:
            self._grow(len(text))
            self._builder.data(text)

    def end(self, tag: str) -> None:
        if self._inside and self._depth == 2:
            self._builder.data(self._text.placeholder)
            self._inside = False
        self._depth -= 1
        self._builder.end(tag)

    def pi(self, _target: str, _text: str | None) -> None:
        self._refuse(Malformed("XML with processing instructions is not accepted"))

    def close(self) -> Element:
        return self._builder.close()

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > MAX_REST:
            self._refuse(ServiceError(413, f"The body has more than {MAX_REST} characters besides {self._name}"))

    def _refuse(self, error: ServiceError) -> NoReturn:
        self.refused = error
        raise error
