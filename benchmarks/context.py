"""What a benchmark is told, and how it says that it cannot be run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class Unavailable(Exception):
    """Something that the measurement needs is not there; the message says what to install."""


class Broken(Exception):
    """A program under test did not do its work; the message says what it did instead."""


@dataclass(frozen=True)
class Context:
    """``quick`` asks for small rounds; ``cache`` is where peers are installed; ``say`` shows progress."""

    quick: bool
    cache: Path
    say: Callable[[str], None]

    def choose(self, full: T, quick: T) -> T:
        return quick if self.quick else full
