import time

import pytest

from heartguard.errors import Unauthorized
from heartguard.tokens import Claims, KeyRing, Tokens
from services.gateway.src.authentication import Authenticator

TOKENS = Tokens(KeyRing.from_secret(b"k" * 32))


def header(sub: str = "7", seconds: int = 60, **options: str) -> str:
    typ = options.get("typ", "access")
    return "Bearer " + TOKENS.issue(sub=sub, role="user", org_id=1, sid="s", typ=typ, seconds=seconds)[0]


class Counting(Tokens):
    verified = 0

    def verify(self, token: str, typ: str = "access") -> Claims:
        self.verified += 1
        return super().verify(token, typ)


def counting() -> Counting:
    return Counting(KeyRing.from_secret(b"k" * 32))


def test_a_good_token_is_verified_once() -> None:
    tokens = counting()
    authenticator = Authenticator(tokens)
    good = header()
    assert authenticator.claims(good) is authenticator.claims(good)
    assert tokens.verified == 1


@pytest.mark.parametrize("bad", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer a.b.c", "Bearer " + "x" * 5000])
def test_anything_else_is_refused(bad: str | None) -> None:
    with pytest.raises(Unauthorized):
        Authenticator(TOKENS).claims(bad)


def test_a_refresh_token_is_no_access_token() -> None:
    with pytest.raises(Unauthorized):
        Authenticator(TOKENS).claims(header(typ="refresh"))


def test_a_remembered_token_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = counting()
    authenticator = Authenticator(tokens)
    short = header(seconds=30)
    authenticator.claims(short)
    later = time.time() + 31
    monkeypatch.setattr("time.time", lambda: later)
    authenticator.claims(short)  # the clock that PyJWT reads has not moved: it still accepts the token
    assert tokens.verified == 2


def test_memory_is_bounded() -> None:
    tokens = counting()
    authenticator = Authenticator(tokens, size=2)
    first, second, third = header("1"), header("2"), header("3")
    for one in (first, second, third):
        authenticator.claims(one)
    authenticator.claims(third)
    assert tokens.verified == 3
    authenticator.claims(first)
    assert tokens.verified == 4


def test_long_headers_are_not_remembered() -> None:
    tokens = counting()
    authenticator = Authenticator(tokens)
    for _ in range(2):
        authenticator.claims(header().replace(" ", " " * 5000))
    assert tokens.verified == 2
    assert not authenticator._known
