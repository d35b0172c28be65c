"""Thousands of tokens that are not quite right, through the verification that requests go through: all refused."""

import base64
import hmac
import json
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest

from heartguard.errors import Unauthorized
from heartguard.tokens import KeyRing, Tokens
from services.gateway.src.authentication import Authenticator

MUTATIONS = int(os.environ.get("HEARTGUARD_MUTATIONS", "3000"))
"""The long proof: 10000."""
SECRET = b"a secret of the tests, 32 bytes long"
RING = KeyRing.from_secret(SECRET)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

Mutation = Callable[[random.Random, "Good"], str]


class Good:
    """A good access token in its parts, and the refresh token of the same session."""

    def __init__(self, access: str, refresh: str) -> None:
        self.access, self.refresh = access, refresh
        self.header, self.payload, self.signature = access.split(".")
        self.claims: dict[str, Any] = jwt.decode(access, options={"verify_signature": False})

    def signed(
        self,
        claims: dict[str, Any] | None = None,
        header: dict[str, Any] | None = None,
        key: bytes = SECRET,
        algorithm: str = "HS256",
    ) -> str:
        """As the service would sign it, but for what is given."""
        names = {"alg": algorithm, "kid": RING.newest, "typ": "JWT", **(header or {})}
        return sign(names, self.claims if claims is None else claims, key, algorithm)

    def with_claim(self, name: str, value: Any) -> str:
        return self.signed({**self.claims, name: value})

    def without_claim(self, name: str) -> str:
        return self.signed({key: value for key, value in self.claims.items() if key != name})


def sign(header: dict[str, Any], claims: dict[str, Any], key: bytes = SECRET, algorithm: str = "HS256") -> str:
    """Any header and claims, signed: a library would refuse to make most of these."""
    signed = f"{encoded(header)}.{encoded(claims)}"
    return f"{signed}.{encoded(hmac.digest(key, signed.encode(), 'sha' + algorithm[2:]))}"


def encoded(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def algorithm(pick: random.Random, good: Good) -> str:
    kind = pick.randrange(3)
    if kind == 0:
        return good.signed(key=SECRET * 2, algorithm=pick.choice(["HS384", "HS512"]))
    named = pick.choice(["none", "None", "NONE", "", "hs256", "HS1", "RS256", "ES256", "PS256", "EdDSA", None, 256, []])
    header = encoded({"alg": named, "kid": RING.newest, "typ": "JWT"})
    return f"{header}.{good.payload}." + ("" if kind == 1 else good.signature)


def key_name(pick: random.Random, good: Good) -> str:
    names = [
        None,
        "",
        0,
        [],
        {},
        RING.newest.upper(),
        RING.newest[:-1],
        RING.newest + " ",
        "../../etc/passwd",
        "0" * 16,
    ]
    kid = pick.choice([*names, f"{pick.getrandbits(64):016x}"])
    header = {"alg": "HS256", "typ": "JWT", "kid": kid}
    if pick.random() < 0.2:
        del header["kid"]
    return sign(header, good.claims)


def type_claim(pick: random.Random, good: Good) -> str:
    return good.with_claim("typ", pick.choice(["refresh", "Access", "access ", "id", "", None, 1, ["access"], True]))


def audience(pick: random.Random, good: Good) -> str:
    others = ["", "HeartGuard", "heartguard ", "hg", None, 1, [], ["heartguard", "x"], ["heartguard"], {"a": 1}]
    return good.with_claim("aud", pick.choice(others))


def issuer(pick: random.Random, good: Good) -> str:
    return good.with_claim(
        "iss", pick.choice(["", "HeartGuard", "heartguard/", "https://evil", None, 1, ["heartguard"]])
    )


def expiry(pick: random.Random, good: Good) -> str:
    now = int(time.time())
    past = now - pick.randrange(1, 10**9)
    return good.with_claim(
        "exp", pick.choice([past, 0, -1, "soon", None, [], str(now + 60), float("nan"), float("inf")])
    )


def issued(pick: random.Random, good: Good) -> str:
    return good.with_claim("iat", pick.choice([int(time.time()) + pick.randrange(60, 10**6), "now", None, [], 1e400]))


def other_claim(pick: random.Random, good: Good) -> str:
    name, values = pick.choice(
        [
            ("sub", ["admin", "-1", "1.0", "", "²", " 1", None, 1, ["1"]]),
            ("role", ["root", "Admin", "", "admin ", None, 1, ["admin"]]),
            ("org_id", ["1", None, 1.5, [], True]),
            ("sid", [None, 1, []]),
            ("jti", [None, 1, {}]),
            ("nbf", [int(time.time()) + 3600, "later"]),
        ]
    )  # fmt: skip
    return good.with_claim(name, pick.choice(values))


def missing_claim(pick: random.Random, good: Good) -> str:
    return good.without_claim(pick.choice(["iss", "aud", "sub", "role", "org_id", "sid", "iat", "exp", "jti", "typ"]))


def another_key(pick: random.Random, good: Good) -> str:
    return good.signed(key=pick.randbytes(pick.choice([32, 48, 64])))


def unsigned_change(pick: random.Random, good: Good) -> str:
    """Other claims under the old signature."""
    changed = {
        **good.claims,
        pick.choice(["sub", "role", "org_id", "sid", "exp", "jti"]): pick.choice(["1", "admin", 1]),
    }
    return f"{good.header}.{encoded(changed)}.{good.signature}"


def bit(pick: random.Random, good: Good) -> str:
    position = pick.randrange(len(good.access))
    other = pick.choice([c for c in ALPHABET if c != good.access[position]])
    return good.access[:position] + other + good.access[position + 1 :]


def inserted(pick: random.Random, good: Good) -> str:
    position = pick.randrange(len(good.access) + 1)
    return good.access[:position] + pick.choice([*"=+/!.,~ \t\0é%", "==", "%00", "\u200b"]) + good.access[position:]


def cut(pick: random.Random, good: Good) -> str:
    length = pick.randrange(len(good.access))
    return pick.choice([good.access[:length], good.access[length + 1 :], good.access + good.access[:length]])


def parts(pick: random.Random, good: Good) -> str:
    pieces = [good.header, good.payload, good.signature]
    pick.shuffle(pieces)
    shuffled = ".".join(pieces)
    return pick.choice(
        [".".join(pieces[:2]), f"{good.access}.{pieces[0]}", "..".join(pieces)] + [shuffled] * (shuffled != good.access)
    )


def encoding(pick: random.Random, good: Good) -> str:
    header, payload, signature = [good.header, good.payload, good.signature]
    raw = base64.urlsafe_b64decode(signature + "=")
    return pick.choice(
        [
            f"{header}.{payload}.{base64.b64encode(raw).decode()}",
            f"{header}.{payload}.{signature}=",
            f"{header}.{payload}.{raw.hex()}",
            f"{header}.{payload}.{signature[:-1]}{pick.choice([c for c in ALPHABET if c != signature[-1]])}",
            f"{header}=.{payload}.{signature}",
            f"{encoded(b'[' * pick.randrange(1, 2500))}.{payload}.{signature}",
            f"{encoded(pick.randbytes(40))}.{payload}.{signature}",
            f"{header}.{encoded(pick.randbytes(40))}.{signature}",
            f"{header}.{encoded(b'null')}.{signature}",
        ]
    )


def other_kind(pick: random.Random, good: Good) -> str:
    return pick.choice(
        [good.refresh, str(uuid.uuid4()), encoded(pick.randbytes(64)), "null", "undefined", "{}", "admin"]
    )


def header_extra(pick: random.Random, good: Good) -> str:
    return good.signed(header={"crit": [pick.choice(["exp", "b64", "x"])], "x": 1})


KINDS: tuple[Mutation, ...] = (
    algorithm, key_name, type_claim, audience, issuer, expiry, issued, other_claim, missing_claim, another_key,
    unsigned_change, bit, inserted, cut, parts, encoding, other_kind, header_extra,
)  # fmt: skip


def mutations(good: Good, count: int) -> Iterator[tuple[str, str]]:
    pick = random.Random(20240601)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        yield kind.__name__, kind(pick, good)


@pytest.fixture
def good(json_api: Any) -> Good:
    pair = json_api.signed_in("admin@heartguard.io", "the first admin's password")
    return Good(pair["access_token"], pair["refresh_token"])


def test_no_mutated_token_is_taken(app: Any, good: Good) -> None:
    """By the service over HTTP and by the gateway's authentication, which remembers good tokens."""
    client = app.test_client()
    gateway = Authenticator(Tokens(RING))

    def ask(token: str) -> int:
        environ = {"HTTP_AUTHORIZATION": f"Bearer {token}".encode().decode("latin-1")}
        return int(client.get("/auth/profile", environ_overrides=environ).status_code)

    def passes_gateway(token: str) -> bool:
        try:
            gateway.claims(f"Bearer {token}")
        except Unauthorized:
            return False
        return True

    assert ask(good.access) == 200
    assert passes_gateway(good.access)
    assert passes_gateway(good.signed())  # so what is refused below is refused for what was changed
    taken = [(kind, token) for kind, token in mutations(good, MUTATIONS) if ask(token) != 401 or passes_gateway(token)]
    assert taken == []
    assert ask(good.access) == 200


def test_no_mutated_refresh_token_is_taken(app: Any, good: Good, tokens: Tokens) -> None:
    refresh = Good(good.refresh, good.access)
    refresh.claims["typ"] = "refresh"
    client = app.test_client()
    for kind, token in mutations(refresh, MUTATIONS // 10):
        if kind == "type_claim":
            continue  # "refresh" is the right one here
        answer = client.post("/auth/refresh", json={"refresh_token": token})
        assert answer.status_code in {401, 422}, (kind, token)
    assert client.post("/auth/refresh", json={"refresh_token": good.refresh}).status_code == 200
