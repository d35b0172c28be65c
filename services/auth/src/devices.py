"""Devices that an account knows, by a cookie that only this service can make (OWASP: "device cookies").

A sign-in gives the client a cookie that is good for nothing but being recognized at the next: it is sent to
``/auth/login`` alone, carries no right, and names no account. Any HTTP client that keeps cookies keeps it, an app
that speaks JSON as well as a browser. It is signed with a key made of ``JWT_SECRET``, which no rotation changes;
nobody can make one without having signed in.
"""

import hashlib
import hmac
import time
from secrets import token_urlsafe

from werkzeug.http import dump_cookie

from heartguard.context import Client

from .attempts import pseudonym

PATH = "/auth/login"
LIFE = 365 * 24 * 3600
"""Seconds from the last sign-in that a device is known."""


class Devices:
    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"heartguard device cookie", hashlib.sha256)

    def recognize(self, client: Client, email: str) -> str:
        """The id of a device that signed in to the account before; empty for a new one."""
        id_, _, rest = client.cookies.get(self._name(email), "").partition(".")
        expires, _, mac = rest.partition(".")
        good = hmac.compare_digest(mac.encode(), self._mac(email, id_, expires).encode())
        return id_ if good and int(expires) > time.time() else ""

    def cookie(self, client: Client, email: str, known: str) -> str:
        """The ``Set-Cookie`` header for the device that just signed in, which was ``known`` or is new."""
        id_ = known or token_urlsafe(16)
        expires = str(int(time.time()) + LIFE)
        return dump_cookie(
            self._name(email),
            f"{id_}.{expires}.{self._mac(email, id_, expires)}",
            max_age=LIFE,
            path=PATH,
            secure=client.secure,
            httponly=True,
            samesite="Strict",
        )

    def _name(self, email: str) -> str:
        """One cookie for each account, so that people who share a device do not push each other out."""
        return "hg_device_" + pseudonym(self._key, "name", email)[:12]

    def _mac(self, email: str, id_: str, expires: str) -> str:
        return pseudonym(self._key, "mac", email, id_, expires)
