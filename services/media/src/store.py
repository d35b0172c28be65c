"""What the media service needs of a store, in a form that a directory and Google Cloud Storage can both meet."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from .names import ObjectName
from .spool import Spool

PAGE = 1000
"""How many names a store lists at once."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """Where an object can be had without a token, up to ``expires_at``."""

    url: str
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class Download:
    """What a link leads to, and how it is shown: as a file of that name and type. ``origin`` is the gateway's."""

    name: ObjectName
    file_name: str
    content_type: str
    origin: str


class Store(Protocol):
    """Objects by name. What is away, or does not answer in time, is :class:`heartguard.errors.Unavailable`."""

    stays: bool
    """Whether files stay on the disk that they come in on."""

    def prepare(self, content: Spool) -> None:
        """The file is complete, and will be put here unless it is refused: begin what takes time."""
        ...

    def put(self, name: ObjectName, content: Spool, content_type: str) -> None:
        """Store the file, durably and whole, under a name that no object has had yet."""
        ...

    def remove(self, name: ObjectName) -> None:
        """Remove the object; one that is not there is as good."""
        ...

    def has(self, name: ObjectName) -> bool: ...

    def names(self) -> Iterator[list[ObjectName]]:
        """The names of all objects in the order of their bytes, page by page."""
        ...

    def sign(self, download: Download) -> Link: ...

    def check(self) -> None:
        """Ask the store something; raises where it does not answer."""
        ...
