"""Secrets and personal data never leave the process in an event."""

import json
import random
import string
from typing import Any

import pytest

from heartguard.audit.masking import MAX_BYTES, MAX_VALUE, mask_text, masked
from heartguard.tokens import KeyRing, Tokens

TOKENS = Tokens(KeyRing.from_secret(b"a secret of the tests, 32 bytes long"))
JWT, _ = TOKENS.issue(sub="5", role="user", org_id=3, sid="s", typ="access", seconds=60)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("anna@hg.io", "a***@hg.io"),
        ("from Anna <anna.b+x@mail.hg.io> today", "from Anna <a***@mail.hg.io> today"),
        ("a@b, c@d", "a***@b, c***@d"),
        ("mailto:anna@hg.io", "mailto:a***@hg.io"),
        ("who=anna@hg.io&x=1", "who=a***@hg.io&x=1"),
        ("ñandú@hg.io", "ñ***@hg.io"),
        ("came from 203.0.113.77", "came from ***"),
        ("203.0.113.77:443", "***:443"),
        ("[2001:db8::7]:443 and ::1, fe80::1%eth0", "[***]:443 and ***, ***%eth0"),
        ("ip:2001:db8::7.", "ip:***."),
        (f"Bearer {JWT}", "***"),
        (f"token {JWT} end", "token *** end"),
        (f"({JWT})", "(***)"),
        ("Basic dXNlcjpwYXNz", "***"),
        ("2024-06-01T10:00:00Z at 10:20:30", "2024-06-01T10:00:00Z at 10:20:30"),
        ("/users/7, org_7 and 1.2.3", "/users/7, org_7 and 1.2.3"),
        ("a\x00b\ud800", "a\ufffdb\ufffd"),
    ],
)
def test_texts(text: str, expected: str) -> None:
    assert mask_text(text) == expected
    assert mask_text(expected) == expected, "what is masked stays as it is"


@pytest.mark.parametrize(
    "key",
    [
        "password", "newPassword", "current-password", "PASSWD", "refresh_token", "Authorization", "client_secret",
        "data_base64", "Set-Cookie", "api_key", "first_name", "lastName", "name", "phone", "ip", "X-Forwarded-For",
        "home_address", "date_of_birth", "user_agent", "file_name",
    ],
)  # fmt: skip
def test_keys_whose_values_are_never_told(key: str) -> None:
    assert masked({key: "canary"}) == {key: "***"}
    assert masked({"deep": {key: ["canary", {"x": "canary"}]}}) == {f"deep.{key}": "***"}


def test_an_address_under_its_own_name_keeps_its_domain() -> None:
    assert masked({"email": "anna@hg.io", "contact_email": "no address"}) == {
        "email": "a***@hg.io",
        "contact_email": "***",
    }


def test_values_of_every_kind_become_flat_scalars() -> None:
    payload: dict[Any, object] = {
        "n": 3, "whole": 3.0, "part": 2.5, "yes": True, "none": None, "big": 10**30, "huge": 10**5000,
        "nan": float("nan"), "inf": float("inf"), "object": object(), "list": [1, "b@c.d"], 7: {"x": {"y": 1}},
    }  # fmt: skip
    found = masked(payload)
    assert found == {
        "n": 3, "whole": 3, "part": 2.5, "yes": True, "none": "", "big": 1e30, "huge": "***", "nan": "nan",
        "inf": "inf", "object": "***", "list.0": 1, "list.1": "b***@c.d", "7.x.y": 1,
    }  # fmt: skip
    assert masked(found) == found


def test_payloads_are_bounded() -> None:
    deep: dict[str, object] = {}
    for _ in range(10_000):
        deep = {"a": deep}
    for payload in (
        {"long": "x" * 10**6},
        {f"k{n}": "x" * 1000 for n in range(100)},
        {f"k{n}": n for n in range(100_000)},
        {"k" * 10_000: 1, "list": list(range(100_000))},
        deep,
    ):
        found = masked(payload)
        assert len(json.dumps(found, ensure_ascii=False).encode()) <= MAX_BYTES + 1024
        assert all(len(value) <= MAX_VALUE for value in found.values() if isinstance(value, str))
        assert masked(found) == found
    assert masked({f"k{n}": "x" * 1000 for n in range(100)})["truncated"] is True


def test_canaries_in_any_place() -> None:
    """Ten thousand secrets, addresses and tokens in random company: none is left."""
    chance = random.Random(7)
    around = string.ascii_letters + string.digits + " ,;()<>\"'\n/&?"
    for number in range(10_000):
        canary = f"c4n4ry{number:06d}"
        kind = number % 4
        secret = (
            f"{canary}@hg.io", f"{10 + number % 90}.{number % 256}.77.13",
            f"2001:db8:{number % 65536:x}::{number % 256:x}", JWT,
        )[kind]  # fmt: skip
        before, after = ("".join(chance.choices(around, k=chance.randrange(9))) for _ in range(2))
        text = f"{before} {secret} {after}"
        found = json.dumps(masked({"deep": {"text": [text]}, text[:60]: 1}), ensure_ascii=False)
        assert (canary if kind == 0 else secret) not in found, text
