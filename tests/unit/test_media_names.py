"""File names, and the names of objects that are made of them."""

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.media.src import names
from services.media.src.names import ObjectName
from services.media.src.signing import derived_key

ITEM = uuid.UUID("0197c3a2-5b1e-7c44-9d1a-3f0e8a6b2c11")


@pytest.mark.parametrize(
    ("given_", "made"),
    [
        ("logo.png", "logo.png"),
        ("Corazón de Ana.PNG", "Corazon_de_Ana.PNG"),
        ("日本.png", "file.png"),
        ("日本", "file"),
        (".htaccess", "file.htaccess"),
        ("a.", "a"),
        ("--rf.png", "rf.png"),
        ("a b;c\"d'.tar.gz", "a_b_c_d_.tar.gz"),
        ("x" * 300 + ".jpeg", "x" * 100 + ".jpeg"),
        ("x." + "y" * 300, "x." + "y" * 16),
        ("..", "file"),
        ("", "file"),
        ("…", "file"),
    ],
)
def test_names_made_safe(given_: str, made: str) -> None:
    assert names.safe(given_) == made


@settings(max_examples=500, deadline=None, database=None, derandomize=True)
@given(st.text(max_size=300))
def test_whatever_the_name_the_objects_is_sound(file_name: str) -> None:
    name = ObjectName.of(7, 2, ITEM, file_name)
    assert name.is_sound, str(name)
    assert ObjectName.parse(str(name)) == name
    assert str(name).startswith(f"org_7/user_2/{ITEM}/")
    header = names.disposition(file_name.encode(errors="replace").decode())
    assert header.isascii()
    assert header.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "org_7/user_2",
        f"org_7/user_2/{ITEM}",
        f"org_7/user_2/{ITEM}/",
        f"org_7/user_2/{ITEM}/..",
        f"org_7/user_2/{ITEM}/a/b",
        f"org_7/user_2/../{ITEM}/a",
        f"org_07/user_2/{ITEM}/a",
        f"org_7/user_x/{ITEM}/a",
        f"org_7/user_2/{str(ITEM).upper()}/a",
        f"org_7/user_2/{ITEM.hex}/a",
        f"org_7/user_2/{ITEM}/a b",
        f"org_7/user_2/{ITEM}/{'a' * 300}",
        f"org_7\n/user_2/{ITEM}/a",
        f"org_٧/user_2/{ITEM}/a",
    ],
)
def test_names_that_are_none_of_ours(text: str) -> None:
    assert ObjectName.parse(text) is None


def test_a_key_for_each_purpose() -> None:
    """The second value is of an independent implementation (pyca/cryptography's HKDF)."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    key = derived_key(b"a secret", b"links")
    assert key == HKDF(SHA256(), 32, None, b"links").derive(b"a secret")
    assert key != derived_key(b"a secret", b"others")
