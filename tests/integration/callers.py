"""Those who speak to a service, and what it tells them."""

from dataclasses import dataclass, replace
from typing import Any, Self

from flask import Flask
from werkzeug.test import TestResponse

from heartguard.tokens import KeyRing, Tokens

SECRET = "a secret of the tests, 32 bytes long"
TOKENS = Tokens(KeyRing.from_secret(SECRET.encode()))


def authorization(org_id: int, role: str = "admin", user_id: int = 1, sid: str = "s") -> dict[str, str]:
    """The header with a token that is good for a minute."""
    token, _ = TOKENS.issue(sub=str(user_id), role=role, org_id=org_id, sid=sid, typ="access", seconds=60)
    return {"Authorization": f"Bearer {token}"}


@dataclass
class Caller:
    """Somebody signed in, and how he speaks to a service in this process."""

    app: Flask
    org_id: int
    role: str = "admin"
    user_id: int = 1

    def send(self, method: str, path: str, body: Any = None, **options: Any) -> TestResponse:
        headers = {**authorization(self.org_id, self.role, self.user_id), **options.pop("headers", {})}
        return self.app.test_client().open(path, method=method, json=body, headers=headers, **options)

    def as_user(self, user_id: int, role: str = "user") -> Self:
        return replace(self, user_id=user_id, role=role)


def details(answer: TestResponse) -> dict[str, str]:
    """What a refusal finds wrong, by where."""
    assert answer.json is not None
    return {detail["path"]: detail["message"] for detail in answer.json["error"].get("details", [])}


def code(answer: TestResponse) -> str:
    assert answer.json is not None
    return str(answer.json["error"]["code"])
