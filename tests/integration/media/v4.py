"""Judges links to Google Cloud Storage as Google does, from its description of V4 signatures alone."""

import hashlib
import json
import urllib.parse
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

ALGORITHM = "GOOG4-RSA-SHA256"
LONGEST = 604_800


class Refused(Exception):
    """Google would not honour the link."""


def verify(url: str, service_account: Path, method: str, now: datetime) -> None:
    """Raise :class:`Refused` unless a request by ``method`` with no more than a ``Host`` header would be honoured."""
    parts = urllib.parse.urlsplit(url)
    query = urllib.parse.parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)
    said = dict(query)
    if len(said) != len(query) or said["X-Goog-Algorithm"] != ALGORITHM:
        raise Refused("algorithm")
    account = json.loads(service_account.read_bytes())
    signer, _, scope = said["X-Goog-Credential"].partition("/")
    date, _, rest = scope.partition("/")
    if signer != account["client_email"] or rest != "auto/storage/goog4_request" or date != said["X-Goog-Date"][:8]:
        raise Refused("credential")
    if said["X-Goog-SignedHeaders"] != "host":
        raise Refused("headers")
    canonical = "\n".join(
        [
            method,
            parts.path,
            _canonical([pair for pair in query if pair[0] != "X-Goog-Signature"]),
            f"host:{parts.netloc}",
            "",
            "host",
            "UNSIGNED-PAYLOAD",
        ]
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    signed = "\n".join([ALGORITHM, said["X-Goog-Date"], scope, digest])
    key = serialization.load_pem_private_key(account["private_key"].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    try:
        key.public_key().verify(
            bytes.fromhex(said["X-Goog-Signature"]), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
        )
    except InvalidSignature:
        raise Refused("signature") from None
    begin = datetime.strptime(said["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    seconds = int(said["X-Goog-Expires"])
    if not 0 < seconds <= LONGEST or not begin - timedelta(minutes=15) <= now <= begin + timedelta(seconds=seconds):
        raise Refused("time")


def _canonical(query: list[tuple[str, str]]) -> str:
    encoded = [(urllib.parse.quote(name, safe="~"), urllib.parse.quote(value, safe="~")) for name, value in query]
    return "&".join(f"{name}={value}" for name, value in sorted(encoded))
