"""What the contract's types look like once annotations are taken off."""

from typing import Literal

from msgspec import inspect

Kind = Literal["string", "number", "boolean"]
ALL_KINDS: frozenset[Kind] = frozenset({"string", "number", "boolean"})


def bare(type_: inspect.Type) -> inspect.Type:
    """``type_`` without annotations. (msgspec itself leaves out that a property is optional.)"""
    while isinstance(type_, inspect.Metadata):
        type_ = type_.type
    return type_


def kinds(type_: inspect.Type) -> frozenset[Kind]:
    """Which kinds of scalars are of the type; more than one in a free map. What JSON writes as text is a string."""
    match bare(type_):
        case inspect.AnyType():
            return ALL_KINDS
        case inspect.UnionType(types=types):
            return frozenset().union(*map(kinds, types))
        case inspect.IntType() | inspect.FloatType():
            return frozenset({"number"})
        case inspect.BoolType():
            return frozenset({"boolean"})
        case inspect.StrType() | inspect.LiteralType() | inspect.DateTimeType() | inspect.UUIDType():
            return frozenset({"string"})
        case other:
            raise TypeError(f"The contract's formats have no scalar for {other}")


def singular(plural: str) -> str:
    """The name of one item's element in the list ``plural``."""
    if not plural.endswith("s"):
        raise TypeError(f"A list is named in the plural; {plural} is not")
    return plural[:-1]
