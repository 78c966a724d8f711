"""Messages that come packed, as clients' setting for compression sends them, and answers that go out in the same coding.

The library would unpack all of a message before it looks at its size. So it leaves them as they come, as it does with
`grpc.per_message_decompression` off, and they are unpacked here within the bounds that hold for bodies over REST. Which coding
a message is in, the library keeps to itself; it shows in how the message begins. Nothing else begins so: there is no field of
the wire type that gzip's first byte would be, and what looks like zlib's head and is no stream of zlib's is left as it is.

What a caller can unpack is kept to itself, too. But who packs a question, unpacks its answer: so that is packed, where it is
longer than a packet. The library packs on the event loop, so long answers go out as they are.
"""

from typing import Final

import grpc

from modelkeep.contracts.errors import TooLarge
from modelkeep.serving.codings import ASKED_FROM, Coding, DamagedBody, is_long, unpacked

ALGORITHMS: Final = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
_GZIP: Final = b"\x1f\x8b\x08"
_DEFLATE: Final = 0x78


def coding_of(message: bytes) -> Coding | None:
    """Return the coding in which a message seems to be."""
    if message.startswith(_GZIP):
        return "gzip"
    if message and message[0] == _DEFLATE and int.from_bytes(message[:2]) % 31 == 0:
        return "deflate"
    return None


async def unpack(coding: Coding, message: bytes, most: int, too_large: TooLarge) -> bytes:
    """Return a message out of its coding, of at most `most` bytes; raises `TooLarge`."""
    try:
        return await unpacked(coding.encode(), message, most, too_large)
    except DamagedBody:
        return message  # who reads it says what it is


def pays(coding: Coding | None, answer: bytes) -> bool:
    """Whether the answer to a question in this coding goes out in it, too."""
    return coding is not None and len(answer) >= ASKED_FROM and not is_long(answer)
