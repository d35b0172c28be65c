"""Keeps secrets and personal data out of the audit trail.

Applied where an event is made, so that they never leave the process, and again before it is stored.
What is masked once stays as it is when masked again.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import msgspec

Value = str | int | float | bool
Payload = dict[str, Value]
"""Flat, so that XML and JSON carry it alike; what is nested gets keys such as ``patient.age``."""

MASK = "***"
MAX_BYTES = 8192
"""Of a payload, as JSON. What does not fit is left out, and ``truncated`` says so."""
MAX_KEYS = 100
MAX_KEY = 128
MAX_VALUE = 1024
"""Characters of one string."""
MAX_DEPTH = 5
TRUNCATED = "truncated"
_EXACT = 2**53

_SECRET = re.compile(
    "pass(word|wd|phrase)|pwd|secret|token|authorization|cookie|credential|apikey|accesskey|privatekey|signingkey"
    "|base64|jwt|signature|otp$|^pin$|^mfa"
)
_PERSONAL = re.compile(
    "(first|last|full|given|family|middle|user|display|patient|nick|sur|maiden|contact|file)name|^names?$|phone|mobile"
    "|address|birth|^ip$|ipaddr|remoteaddr|clientip|forwarded|^dob$|^ssn$|useragent|email"
)
_BREAK = r"\s@<>\"',;:()/\\\[\]{}=|"
# Each begins where a run of its characters does, so that none is looked at twice.
_email = re.compile(rf"(?<![^{_BREAK}])[^{_BREAK}]+@(?=[^{_BREAK}])")
_token = re.compile(r"(?<![\w\-])[\w\-]*eyJ[\w\-=]{8,}(\.[\w\-=]*)*|(?i:\b(bearer|basic)\s+)[^\s,;]+", re.ASCII)
_ipv4 = re.compile(r"(?<![\d.])\d{1,3}(\.\d{1,3}){3}(?!\.?\d)")
_ipv6 = re.compile(r"(?<!\w)[0-9a-fA-F:.]{2,46}")
_control = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_encode = msgspec.json.Encoder().encode


def mask_text(text: str) -> str:
    """``text`` with addresses (of mail and network) and tokens masked, and what XML cannot carry replaced."""
    if not text.isprintable():
        text = _control.sub("\ufffd", text)
    if "@" in text:
        text = _email.sub(lambda found: f"{found[0][0]}{MASK}@", text)
    if "eyJ" in text or " " in text:
        text = _token.sub(MASK, text)
    if text.count(".") >= 3:
        text = _ipv4.sub(MASK, text)
    if text.count(":") >= 2:
        text = _ipv6.sub(_mask_if_address, text)
    return text


def _mask_if_address(found: re.Match[str]) -> str:
    candidate = found[0].rstrip(".")
    if candidate.endswith(":") and not candidate.endswith("::"):
        candidate = candidate[:-1]
    try:
        ip_address(candidate)
    except ValueError:
        return found[0]
    return MASK + found[0][len(candidate) :]


def masked(payload: Mapping[Any, object]) -> Payload:
    """``payload`` flat, bounded, and without secrets and personal data."""
    kept: Payload = {}
    size = 2
    for key, value in _flat(payload, "", 1):
        size += len(_encode(key)) + len(_encode(value)) + 2
        if len(kept) >= MAX_KEYS or size > MAX_BYTES - len(TRUNCATED) - 10:
            kept[TRUNCATED] = True
            break
        kept[key] = value
    return kept


def _flat(mapping: Mapping[Any, object], prefix: str, depth: int) -> Iterator[tuple[str, Value]]:
    for own, value in mapping.items():
        name = str(own)
        key = (prefix + mask_text(name))[:MAX_KEY]
        plain = "".join(filter(str.isalnum, name)).lower()
        if _SECRET.search(plain):
            yield key, MASK
        elif _PERSONAL.search(plain):
            yield key, _personal(value)
        elif isinstance(value, Mapping | list | tuple):
            inner = value if isinstance(value, Mapping) else _numbered(value)
            if depth >= MAX_DEPTH:
                yield key, TRUNCATED
            else:
                yield from _flat(inner, f"{key}.", depth + 1)
        else:
            yield key, _scalar(value)


def _numbered(items: Sequence[object]) -> Mapping[int, object]:
    return dict(enumerate(items[: MAX_KEYS + 1]))


def _personal(value: object) -> Value:
    """An e-mail address keeps its first letter and its domain; of all else nothing is kept."""
    if isinstance(value, str) and "@" in value:
        found = _scalar(value)
        if isinstance(found, str) and " " not in found and found[1:].startswith(f"{MASK}@"):
            return found
    return MASK


def _scalar(value: object) -> Value:
    match value:
        case bool():
            return value
        case int():
            return value if -_EXACT <= value <= _EXACT else float(value) if value.bit_length() <= 1000 else MASK
        case float() if not math.isfinite(value):
            return str(value)
        case float():
            return int(value) if value.is_integer() and abs(value) <= _EXACT else value
        case None:
            return ""
        case str():
            text = mask_text(value[: 4 * MAX_VALUE])
            return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 1] + "…"
    return MASK
