"""Links to files of the local store: signed, and good up to a second.

The key is made of ``JWT_SECRET`` by HKDF (RFC 5869), so that no other use of the secret knows it.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from urllib.parse import quote, urlencode

from .names import ObjectName

PATH = "/media/objects"


def derived_key(secret: bytes, purpose: bytes) -> bytes:
    """32 bytes by HKDF-SHA256, without a salt."""
    pseudorandom = hmac.digest(bytes(32), secret, hashlib.sha256)
    return hmac.digest(pseudorandom, purpose + b"\x01", hashlib.sha256)


class LinkSigner:
    def __init__(self, secret: bytes) -> None:
        self._key = derived_key(secret, b"heartguard media links")

    def link(self, name: ObjectName, *, expires: int, file_name: str, content_type: str) -> str:
        """Path and query string; ``expires`` is the last second (Unix) in which they work."""
        query = {"expires": str(expires), "file_name": file_name, "content_type": content_type}
        signature = self._signature(name, expires, file_name, content_type)
        return f"{PATH}/{quote(str(name))}?{urlencode({**query, 'signature': signature})}"

    def is_good(self, signature: str, name: ObjectName, *, expires: int, file_name: str, content_type: str) -> bool:
        """Whether the signature is the one of such a link, expired or not."""
        expected = self._signature(name, expires, file_name, content_type)
        return hmac.compare_digest(signature.encode(), expected.encode())

    def _signature(self, name: ObjectName, expires: int, file_name: str, content_type: str) -> str:
        signed = "\n".join(["GET", PATH, str(name), str(expires), content_type, file_name])
        return urlsafe_b64encode(hmac.digest(self._key, signed.encode(), hashlib.sha256)).decode().rstrip("=")
