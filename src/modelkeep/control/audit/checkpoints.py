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


def signed_by(seed: bytes, checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint is as the key that `seed` is signs it: Ed25519 signs the same in the same way."""
    return signed(seed, Head(checkpoint.seq, checkpoint.head), checkpoint.at) == checkpoint


def public(seed: bytes) -> str:
    """Return what signatures of the key that `seed` is are checked with."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw().hex()
