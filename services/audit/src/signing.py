"""Signs what must be checkable without asking this service: checkpoints and exports (Ed25519, RFC 8032)."""

import hashlib

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from heartguard.audit.chain import CHECKPOINT_CONTEXT, EXPORT_CONTEXT, Checkpoint, ExportEnd

_SEED_CONTEXT = b"heartguard audit signing key\n"


class Signer:
    """``secret`` is what the key is derived from."""

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(_SEED_CONTEXT + secret).digest())
        self.public_key = self._key.public_key().public_bytes_raw()
        self.key_id = hashlib.sha256(self.public_key).hexdigest()[:16]

    def sign_checkpoint(self, checkpoint: Checkpoint) -> bytes:
        return self._sign(CHECKPOINT_CONTEXT, checkpoint)

    def sign_export(self, end: ExportEnd) -> bytes:
        return self._sign(EXPORT_CONTEXT, end)

    def signed(self, checkpoint: Checkpoint, signature: bytes) -> bool:
        """Whether this key signed it; signatures of Ed25519 are always the same, and need not be secret."""
        return checkpoint.key_id == self.key_id and self.sign_checkpoint(checkpoint) == signature

    def _sign(self, context: bytes, said: msgspec.Struct) -> bytes:
        return self._key.sign(context + msgspec.json.encode(said, order="sorted"))
