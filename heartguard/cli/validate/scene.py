"""What a run makes and learns, for the steps that come after."""

import secrets
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from ...negotiation import Format
from ...timestamps import SECOND
from .long_answers import SPAN

CONTENT = b"second,bpm\n0,72\n1,71\n"
"""Of the file that is uploaded."""


@dataclass(frozen=True)
class Left:
    """Something to remove: what to call it, and the statuses of a ``DELETE`` after which it is gone."""

    name: str
    gone: frozenset[int]


@dataclass(kw_only=True)
class Made:
    """What is made in one format: a person of the run's own, a bucket, a file, an audit event.

    Ids that are not known, because making the thing failed, are those of nothing.
    """

    run: "Scene"
    letter: str
    password: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    user_id: int = 2**31 - 1
    token: str | None = None
    refresh_token: str = "none"
    session: str = "none"
    item: str = field(default_factory=lambda: str(uuid.uuid4()))
    link: str | None = None
    event: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def email(self) -> str:
        return f"validate-{self.run.mark}-{self.letter}@heartguard.example"

    @property
    def bucket(self) -> str:
        return f"org_{self.run.org_id}_validate_{self.run.mark}_{self.letter}"

    def signed_in(self, pair: Any) -> None:
        self.token, self.refresh_token = pair.access_token, pair.refresh_token


class Scene:
    """One run. ``left`` has, by path, what a ``DELETE`` still has to remove."""

    def __init__(self) -> None:
        self.mark = secrets.token_hex(4)
        self.token: str | None = None
        self.org_id = 0
        self.policies = ""
        self.etag = ""
        self.left: dict[str, Left] = {}
        began = int(time.time()) - 60
        self.time = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began))
        self.first_point = (began - SPAN) * SECOND
        """In nanoseconds since the epoch."""
        self.made = {fmt: Made(run=self, letter=fmt.name[0].lower()) for fmt in Format}

    @property
    def first(self) -> Made:
        """What was made in JSON: what both formats are asked for, so that they can be compared."""
        return self.made[Format.JSON]

    @property
    def action(self) -> str:
        """What the audit trail calls what this run records."""
        return f"VALIDATE_{self.mark.upper()}"
