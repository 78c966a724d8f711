"""Signs checkpoints of the chain."""

from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from modelkeep.contracts.audit_chain import checkpoint_message
from modelkeep.control.audit.rules import Checkpoint, Head, written


def signed(seed: bytes, head: Head, at: datetime) -> Checkpoint:
    """Return a checkpoint of this head, signed with the key that `seed` is."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    signature = key.sign(checkpoint_message(head.seq, head.hash, written(at)))
    return Checkpoint(head.seq, at, head.hash, signature.hex(), key.public_key().public_bytes_raw().hex())
