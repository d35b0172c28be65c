"""What the contract's types look like once annotations and optionality are taken off."""

from typing import Literal

from msgspec import inspect

Kind = Literal["string", "number", "boolean"]
ALL_KINDS: frozenset[Kind] = frozenset({"string", "number", "boolean"})


def bare(type_: inspect.Type) -> inspect.Type:
    """``type_`` without annotations, and without being optional."""
    while True:
        if isinstance(type_, inspect.Metadata):
            type_ = type_.type
        elif isinstance(type_, inspect.UnionType) and len(rest := _present(type_)) == 1:
            type_ = rest[0]
        else:
            return type_


def _present(union: inspect.UnionType) -> list[inspect.Type]:
    return [member for member in union.types if not isinstance(member, inspect.NoneType)]


def kinds(type_: inspect.Type) -> frozenset[Kind]:
    """Which kinds of scalars are of the type; more than one in a free map. What JSON writes as text is a string."""
    match bare(type_):
        case inspect.AnyType():
            return ALL_KINDS
        case inspect.UnionType() as union:
            return frozenset().union(*(kinds(member) for member in _present(union)))
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
