"""Paths as the logs and the audit trail show them: what could be somebody's name or address is left out."""

import re

LONGEST = 256
HIDDEN = "*"

_is_id = re.compile(
    r"[0-9]{1,19}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|(org|user)_[0-9]+[a-z0-9_]*"
).fullmatch
_is_word = re.compile(r"([a-z]+([-_.][a-z]+)*)?").fullmatch


def shown(path: str, template: str | None) -> str:
    """``path`` (decoded) with ``*`` for what is neither a word of its route's ``template`` nor an id of ours.

    A file's name in a link, an address where an id belongs: people put anything into a path. Where there is no
    template, plain words are kept, to see what was looked for.
    """
    if path == template:
        return path
    words = template.split("/") if template is not None else None
    parts = path[:LONGEST].split("/")
    return "/".join(part if _is_known(part, words) else HIDDEN for part in parts)


def _is_known(part: str, words: list[str] | None) -> bool:
    return bool(_is_id(part) or (_is_word(part) if words is None else part in words))
