"""Tokens: what is signed here is taken, anything else is refused."""

import base64
import json
import string
import time
import uuid
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartguard.errors import Unauthorized
from heartguard.tokens import KeyRing, Tokens, TokenType, bearer

SECRET = b"0123456789abcdef0123456789abcdef"
RING = KeyRing.from_secret(SECRET)
TOKENS = Tokens(RING)


def issue(typ: TokenType = "access") -> str:
    token, _ = TOKENS.issue(sub="7", role="user", org_id=3, sid=str(uuid.uuid4()), typ=typ, seconds=60)
    return token


def forge(
    header: dict[str, Any] | None = None, key: bytes | None = SECRET, algorithm: str = "HS256", **claims: Any
) -> str:
    """A token like a good one but for what is given; a claim that is None is left out."""
    now = int(time.time())
    good = {
        "sub": "7", "role": "user", "org_id": 3, "sid": "s", "jti": "j", "typ": "access",
        "iat": now, "exp": now + 60, "iss": "heartguard", "aud": "heartguard",
    }  # fmt: skip
    payload = {name: value for name, value in {**good, **claims}.items() if value is not None}
    return jwt.encode(payload, key, algorithm, headers={"kid": RING.newest, **(header or {})})


def encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def with_header(header: bytes) -> str:
    _, payload, signature = issue().split(".")
    return ".".join([encoded(header), payload, signature])


@pytest.mark.parametrize("typ", ["access", "refresh"])
def test_what_is_issued_is_read(typ: TokenType) -> None:
    token, claims = TOKENS.issue(sub="7", role="manager", org_id=3, sid="s", typ=typ, seconds=60)
    assert TOKENS.verify(token, typ) == claims
    assert TOKENS.read(token) == claims
    assert (claims.user_id, claims.role, claims.org_id, claims.exp - claims.iat) == (7, "manager", 3, 60)
    header = jwt.get_unverified_header(token)
    assert (header["alg"], header["kid"]) == ("HS256", RING.newest)


@pytest.mark.parametrize(("typ", "other"), [("access", "refresh"), ("refresh", "access")])
def test_one_kind_is_never_taken_for_the_other(typ: TokenType, other: TokenType) -> None:
    with pytest.raises(Unauthorized):
        TOKENS.verify(issue(typ), other)


def test_a_forged_token_with_the_right_key_and_claims_would_pass() -> None:
    assert TOKENS.verify(forge()).sub == "7"


NOW = int(time.time())
FORGED = {
    "another key": forge(key=b"f" * 32),
    "another algorithm": forge(algorithm="HS512", key=SECRET * 2),
    "no algorithm": forge(algorithm="none", key=None),
    "algorithm of another case": with_header(b'{"alg":"hs256","kid":"%s"}' % RING.newest.encode()),
    "unknown kid": forge({"kid": "0" * 16}),
    "kid of another type": with_header(b'{"alg":"HS256","kid":["a"]}'),
    "no kid": with_header(b'{"alg":"HS256"}'),
    "header that is no object": with_header(b'["HS256"]'),
    "header nested too deeply": with_header(b"[" * 2900),
    "header that is not UTF-8": with_header(b"\xff\xfe"),
    "critical extension": forge({"crit": ["x"], "x": 1}),
    "expired": forge(iat=NOW - 120, exp=NOW - 60),
    "expiring this second": forge(exp=NOW),
    "issued in the future": forge(iat=NOW + 3600, exp=NOW + 7200),
    "another issuer": forge(iss="someone"),
    "another audience": forge(aud="someone"),
    "several audiences": forge(aud=["heartguard", "someone"]),
    "unknown role": forge(role="root"),
    "unknown type": forge(typ="id"),
    "organization as text": forge(org_id="3"),
    "subject that is no number": forge(sub="admin"),
    "negative subject": forge(sub="-1"),
    "expiry as text": forge(exp="soon"),
    "expiry without end": forge(exp=float("inf")),
    "expiry of nothing": forge(exp=float("nan")),
    "not yet valid": forge(nbf=NOW + 3600),
    **{f"no {claim}": forge(**{claim: None})
       for claim in ("iss", "aud", "sub", "role", "org_id", "sid", "iat", "exp", "jti", "typ")},
    "empty": "",
    "dots": "..",
    "words": "not a token",
    "not ASCII": "é.é.é",
    "lone surrogate": "\ud800.a.b",
    "two parts": issue().rpartition(".")[0],
    "four parts": issue() + ".x",
    "no signature": issue().rpartition(".")[0] + ".",
    "padded": issue() + "=",
    "space before": " " + issue(),
    "line break after": issue() + "\n",
    "foreign character in the signature": issue()[:-5] + "!" + issue()[-5:],
}  # fmt: skip


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED.keys())
def test_forged(token: str) -> None:
    for typ in ("access", "refresh"):
        with pytest.raises(Unauthorized):
            TOKENS.verify(token, typ)  # type: ignore[arg-type]


GOOD = Tokens(RING).issue(sub="7", role="user", org_id=3, sid="s", typ="access", seconds=100_000)[0]
BASE64URL = string.ascii_letters + string.digits + "-_"


@given(st.integers(0, len(GOOD) - 1), st.sampled_from(BASE64URL + ".=+/! \n"))
def test_no_character_can_be_changed(position: int, character: str) -> None:
    mutated = GOOD[:position] + character + GOOD[position + 1 :]
    if mutated != GOOD:
        with pytest.raises(Unauthorized):
            TOKENS.read(mutated)


def test_the_signatures_spare_bits_cannot_be_changed() -> None:
    """The last character carries two bits that a lenient decoder ignores."""
    taken = [last for last in BASE64URL if _reads(GOOD[:-1] + last)]
    assert taken == [GOOD[-1]]


def _reads(token: str) -> bool:
    try:
        TOKENS.read(token)
    except Unauthorized:
        return False
    return True


def test_a_clock_that_is_a_little_ahead_is_borne() -> None:
    assert TOKENS.verify(forge(iat=int(time.time()) + 5))


def test_an_older_key_still_verifies() -> None:
    older = issue()
    second = KeyRing({**RING.keys, "second": b"s" * 32}, "second")
    assert Tokens(second).verify(older).sub == "7"
    newer = Tokens(second).issue(sub="8", role="user", org_id=3, sid="s", typ="access", seconds=60)[0]
    assert Tokens(second).verify(newer).sub == "8"
    swapped = json.loads(base64.urlsafe_b64decode(newer.split(".")[0] + "=="))
    swapped["kid"] = RING.newest
    with pytest.raises(Unauthorized):
        Tokens(second).verify(".".join([encoded(json.dumps(swapped).encode()), *newer.split(".")[1:]]))


def test_key_rings_from_one_secret_agree_and_do_not_show_it() -> None:
    assert KeyRing.from_secret(SECRET).newest == RING.newest
    assert KeyRing.from_secret(SECRET + b"x").newest != RING.newest
    assert SECRET.decode() not in RING.newest


def test_service_tokens() -> None:
    claims = TOKENS.verify(TOKENS.service_token(30))
    assert (claims.role, claims.exp - claims.iat) == ("service", 30)


@pytest.mark.parametrize("header", ["Bearer abc", "bearer abc", "BEARER  abc "])
def test_bearer(header: str) -> None:
    assert bearer(header) == "abc"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "abc", "Bearer " + "a" * 4097])
def test_no_bearer(header: str | None) -> None:
    with pytest.raises(Unauthorized):
        bearer(header)
