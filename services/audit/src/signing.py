"""Signs what must be checkable without asking this service: checkpoints and exports (Ed25519, RFC 8032)."""

import hashlib
from collections.abc import Iterable

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from heartguard.audit.chain import CHECKPOINT_CONTEXT, EXPORT_CONTEXT, Checkpoint, ExportEnd

_SEED_CONTEXT = b"heartguard audit signing key\n"


class Signer:
    """``secret`` is what the key is derived from; ``former`` are the public keys that there were before it."""

    def __init__(self, secret: bytes, former: Iterable[bytes] = ()) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(_SEED_CONTEXT + secret).digest())
        self.public_key = self._key.public_key().public_bytes_raw()
        self.key_id = _key_id(self.public_key)
        self.public_keys = [self.public_key, *former]
        self._by_id = {_key_id(key): Ed25519PublicKey.from_public_bytes(key) for key in self.public_keys}

    def sign_checkpoint(self, checkpoint: Checkpoint) -> bytes:
        return self._sign(CHECKPOINT_CONTEXT, checkpoint)

    def sign_export(self, end: ExportEnd) -> bytes:
        return self._sign(EXPORT_CONTEXT, end)

    def signed(self, checkpoint: Checkpoint, signature: bytes) -> bool:
        """Whether the key that it names signed it, and is this one or a former one."""
        try:
            self._by_id[checkpoint.key_id].verify(signature, _said(CHECKPOINT_CONTEXT, checkpoint))
        except (KeyError, InvalidSignature):
            return False
        return True

    def _sign(self, context: bytes, said: msgspec.Struct) -> bytes:
        return self._key.sign(_said(context, said))


def _said(context: bytes, said: msgspec.Struct) -> bytes:
    return context + msgspec.json.encode(said, order="sorted")


def _key_id(public_key: bytes) -> str:
    return hashlib.sha256(public_key).hexdigest()[:16]
