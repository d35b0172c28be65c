"""From XML to what a JSON parser would give, guided by the type.

One reader is made for each type, once. A reader takes an element and where it lies, and returns
the plain value. Only what JSON has no counterpart for (a repeated element, stray text, an
attribute) is judged here; text that is not of its type stays a string, for the schema to judge.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from lxml.etree import _Element as Element
from msgspec import inspect

from ..errors import Invalid
from ..models.common import Detail
from ..schema.numbers import number
from ..schema.pointer import pointer, shortened
from ..schema.shapes import ALL_KINDS, Kind, bare, kinds, singular
from .document import SPACE, read

MAX_FOUND = 1000
_BOOLEANS = {"true": True, "false": False}


class Place:
    """Where an element lies, and the violations found so far in its document."""

    __slots__ = ("found", "parent", "step")

    def __init__(self, found: list[Detail], parent: "Place | None" = None, step: str | int = "") -> None:
        self.found = found
        self.parent = parent
        self.step = step

    def at(self, step: str | int) -> "Place":
        return Place(self.found, self, step)

    def report(self, message: str) -> None:
        """Raises :class:`Invalid` (422) once there are enough: the rest of a hostile document is not worth its time."""
        self.found.append(Detail(path=self._pointer(), message=message))
        if len(self.found) == MAX_FOUND:
            raise Invalid(self.found)

    def _pointer(self) -> str:
        steps: list[str | int] = []
        place = self
        while place.parent is not None:
            steps.append(place.step)
            place = place.parent
        return pointer(reversed(steps))


Read = Callable[[Element, Place], Any]
Choose = Callable[[Element, Place], tuple[str, Read]]
"""The key that an element stands for, and the reader of its value."""


def parse(body: bytes, type_: type) -> tuple[Any, list[Detail]]:
    """The plain value of ``body``, and the violations that only XML can have.

    The schema's violations are for the caller to find in the value. Raises :class:`Malformed`
    (400) for a body that is not well formed or holds what is not allowed at all, and
    :class:`Invalid` (422) where XML's own violations are very many.
    """
    return interpret(read(body), type_)


def interpret(root: Element, type_: type) -> tuple[Any, list[Detail]]:
    """The same, of a document that was read already."""
    place = Place([])
    if _local_name(root, place) != type_.__name__:
        place.report(f"the root element must be named {type_.__name__}")
    return _reader(type_)(root, place), place.found


@cache
def _reader(type_: type) -> Read:
    return _compile(inspect.type_info(type_), type_.__name__)


def _compile(type_: inspect.Type, name: str) -> Read:
    match bare(type_):
        case inspect.StructType() as struct:
            return _struct({field.encode_name: _compile(field.type, field.encode_name) for field in struct.fields})
        case inspect.ListType(item_type=item):
            return _list(singular(name), _compile(item, singular(name)))
        case inspect.DictType(value_type=value):
            return _map(_compile(value, name))
        case scalar:
            return _scalar(kinds(scalar))


def _struct(readers: dict[str, Read]) -> Read:
    def choose(child: Element, place: Place) -> tuple[str, Read]:
        name = str(child.tag)
        if reader := readers.get(name):
            return name, reader
        name = _local_name(child, place)
        return name, readers.get(name, _unknown)

    return _object(choose)


def _map(read_value: Read) -> Read:
    def choose(child: Element, place: Place) -> tuple[str, Read]:
        key = str(child.tag)
        if key == "entry":
            key = str(child.attrib.pop("key", key))
        elif key[0] == "{":
            key = _local_name(child, place)
        return key, read_value

    return _object(choose)


def _object(choose: Choose) -> Read:
    def read_object(element: Element, place: Place) -> Any:
        if (text := _text_alone(element)) is not None:
            return text
        plain: dict[str, Any] = {}
        _refuse_attributes(element, place)
        _refuse_text(element.text, place)
        for child in element:
            key, reader = choose(child, place)
            if key in plain:
                place.at(key).report("must not be repeated")
            else:
                plain[key] = reader(child, place.at(key))
            _refuse_text(child.tail, place)
        return plain

    return read_object


def _list(item_name: str, read_item: Read) -> Read:
    def read_list(element: Element, place: Place) -> Any:
        if (text := _text_alone(element)) is not None:
            return text
        plain: list[Any] = []
        _refuse_attributes(element, place)
        _refuse_text(element.text, place)
        for child in element:
            if child.tag == item_name or _local_name(child, place) == item_name:
                plain.append(read_item(child, place.at(len(plain))))
            else:
                place.report(f"must hold elements named {item_name} only")
            _refuse_text(child.tail, place)
        return plain

    return read_list


def _scalar(allowed: frozenset[Kind]) -> Read:
    """A reader of text. Elements inside become an empty object, which is of no scalar type."""
    convert = _CONVERT[next(iter(allowed))] if len(allowed) == 1 else _decide

    def read_scalar(element: Element, place: Place) -> Any:
        if len(element):
            return {}
        _refuse_attributes(element, place)
        return convert(element.text or "")

    def read_mixed(element: Element, place: Place) -> Any:
        if len(element):
            return {}
        stated = element.attrib.pop("type", None)
        _refuse_attributes(element, place)
        text = element.text or ""
        return convert(text) if stated is None else _as_stated(str(stated), text, place)

    return read_scalar if len(allowed) == 1 else read_mixed


def _as_stated(stated: str, text: str, place: Place) -> Any:
    """``text`` as the attribute ``type`` says."""
    if stated not in ALL_KINDS:
        place.report("must have one of string, number, boolean as its attribute type")
        return text
    value = _CONVERT[stated](text)
    if stated != "string" and isinstance(value, str):
        place.report(f"must be a {stated}, as its attribute type says")
    return value


def _number(text: str) -> Any:
    value = number(text.strip(SPACE))
    return text if value is None else value


def _boolean(text: str) -> Any:
    return _BOOLEANS.get(text.strip(SPACE), text)


def _decide(text: str) -> Any:
    value = _number(text)
    return _boolean(text) if isinstance(value, str) else value


_CONVERT: dict[str, Callable[[str], Any]] = {"string": str, "number": _number, "boolean": _boolean}


def _unknown(_element: Element, _place: Place) -> Any:
    """The value of a property that the type does not have. Only its name matters."""
    return ""


def _text_alone(element: Element) -> str | None:
    """The text of an element that holds nothing else, and more than white space."""
    if len(element):
        return None
    text = element.text
    return text if text and text.strip(SPACE) else None


def _refuse_text(text: str | None, place: Place) -> None:
    if text and text.strip(SPACE):
        place.report("must not have text between its elements")


def _refuse_attributes(element: Element, place: Place) -> None:
    for name in element.keys():  # noqa: SIM118 (an element is no dict)
        place.report(f"must not have the attribute {shortened(str(name))}")


def _local_name(element: Element, place: Place) -> str:
    """The name without its namespace, which is a violation."""
    namespace, _, name = str(element.tag).rpartition("}")
    if namespace:
        place.report(f"must not have elements in a namespace, such as {shortened(name)}")
    return name
