"""Hooks: a file of Python that goes before and after a version's model, and what is known of it."""

import msgspec

from modelkeep.contracts.signature import Signature

FILE = "hooks.py"
"""What the file is called wherever it is told of."""

FUNCTIONS = ("preprocess", "postprocess")
"""What it may define."""

MOST_BYTES = 1 << 20
"""How large it may be."""


class Hooks(msgspec.Struct, frozen=True, omit_defaults=True):
    """The file's SHA-256 and bytes, the functions that validation found in it, and the signature of the version without it.

    `alone`: validation wants the functions without the model, to learn what they make of the sample.
    """

    digest: str
    size: int
    functions: tuple[str, ...] = ()
    inner: Signature | None = None
    alone: bool = False
