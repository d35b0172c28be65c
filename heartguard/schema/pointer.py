"""Where in a body a violation lies."""

from collections.abc import Iterable

Path = tuple[str | int, ...]

LONGEST_NAME = 100
"""Characters of a name that are shown: names can come from a client, as long as the body allows."""


def pointer(path: Iterable[str | int]) -> str:
    """The RFC 6901 pointer of ``path``."""
    return "".join("/" + shortened(str(step)).replace("~", "~0").replace("/", "~1") for step in path)


def shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "…"
