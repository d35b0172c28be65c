"""Takes the checks out of a service, one by one, to see that PostgreSQL still refuses."""

import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from inspect import unwrap
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Protocol

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from heartguard.database import Database
from heartguard.services import SERVICES
from heartguard.settings import ROOT

CANARY = "Canary"


class Theatre(Protocol):
    """Two organizations: the attacker's and the victim's."""

    def rows(self) -> Mapping[str, Any]:
        """All that the victim's organization has."""
        ...

    def attack(self) -> list[str]:
        """Everything that was read of the victim's, by what got it."""
        ...


@contextmanager
def held(theatre: Theatre) -> Iterator[None]:
    """Sees that an attack, made in the block's circumstances, leads nowhere."""
    before = theatre.rows()
    assert any(before.values())
    yield
    assert theatre.attack() == []
    assert theatre.rows() == before


def got_through(
    database: Database, org_id: int, steps: Iterable[tuple[str, Callable[[Connection], object]]]
) -> list[str]:
    """The names of steps that found something, each in a transaction of that organization's."""
    found = []
    for name, step in steps:
        with suppress(SQLAlchemyError), database.transaction(org_id) as tx:  # a refusal is what is hoped for
            if step(tx):
                found.append(name)
    return found


def conditions(modules: Mapping[str, re.Pattern[str]]) -> Iterator[Any]:
    """Each condition on whose a row is, in each module that holds SQL; read from the source, so none is forgotten.

    A pattern finds the condition as its first group.
    """
    for module, pattern in modules.items():
        for condition in sorted(set(pattern.findall(source_of(module)))):
            yield pytest.param(module, condition, id=f"{module}: {condition}")


def source_of(module: str) -> str:
    return Path(importlib.import_module(module).__file__ or "").read_text(encoding="utf-8")


def sql_modules(service: str) -> list[str]:
    """A service's modules that hold SQL: found by their names, so that none is forgotten."""
    package = SERVICES[service].package
    files = (ROOT / package.replace(".", "/")).glob("db*.py")
    return sorted(f"{package}.{file.stem}" for file in files)


def take_out(monkeypatch: pytest.MonkeyPatch, module: str, pattern: re.Pattern[str], *only: str) -> None:
    """Make conditions of a module's statements, or all of them, always true: in SQL, or in SQLAlchemy's own terms."""

    def without(match: re.Match[str]) -> str:
        whole, condition = match[0], match[1]
        always = f"(({condition}) | true())" if "==" in condition else f"({condition} OR true)"
        return whole.replace(condition, always) if not only or condition in only else whole

    real, source = importlib.import_module(module), source_of(module)
    blunt = pattern.sub(without, source)
    assert blunt != source
    scope: dict[str, Any] = {"__name__": module, "__package__": real.__package__}
    exec(compile(blunt, f"{module} without {only}", "exec"), scope)
    for name, value in vars(real).copy().items():
        if isinstance(value, FunctionType) and value.__module__ == module:
            # It stays the one that others have imported by its name.
            monkeypatch.setattr(unwrap(value), "__code__", unwrap(scope[name]).__code__)
        elif not isinstance(value, type | ModuleType) and not name.startswith("__"):
            monkeypatch.setattr(real, name, scope[name])  # classes stay: others know them
