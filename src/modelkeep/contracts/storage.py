"""The protocol of blob stores: content-addressed files. Found by entry point (`modelkeep.storage`)."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol, Self

import msgspec
from annotated_types import Interval

from modelkeep.contracts.errors import DamagedFile
from modelkeep.contracts.secret import NO_SECRET, Secret


@dataclass(frozen=True)
class StorageSettings:
    """Where the files of models are kept, and how they are reached."""

    kind: Annotated[
        Literal["local", "s3"], "Where model files are kept: below the data directory (local), or in an object store (s3)."
    ] = "local"
    bucket: Annotated[str, "The bucket, for s3. It must be there already."] = ""
    prefix: Annotated[
        str, "What the names of all objects in the bucket begin with, such as a folder; each installation needs its own."
    ] = ""
    endpoint: Annotated[
        str, "Address of the object store, such as https://s3.internal:9000; empty means Amazon's for the region."
    ] = ""
    region: Annotated[str, "Region of the bucket; stores that know none take any."] = "us-east-1"
    bucket_in: Annotated[
        Literal["path", "host"], "Where addresses name the bucket: in the path, as most private stores want it, or in the host."
    ] = "path"
    ca_file: Annotated[
        str, "File with the certificates (PEM) of the authority that signed the store's; empty means the system's own."
    ] = ""
    sign_in: Annotated[
        Literal["keys", "role", "web-identity", "instance"],
        "How to sign in: with an access key (keys); with a role that this key may take (role); with a role given for a token "
        "file (web-identity); or with what the machine's metadata service gives (instance), which nothing else asks.",
    ] = "keys"
    keys_file: Annotated[
        str, "File with the access key's id on its first line and its secret on the second; read again after each change."
    ] = ""
    access_key_id: Annotated[str, "The access key's id, where there is no storage.keys_file."] = ""
    secret_access_key: Annotated[Secret, "The access key's secret, where there is no storage.keys_file."] = NO_SECRET
    role_arn: Annotated[str, "The role to take, for role and web-identity."] = ""
    role_session_name: Annotated[str, "The name under which the role's use is noted by the store."] = "modelkeep"
    sts_endpoint: Annotated[str, "Address of the service that gives roles; empty means Amazon's for the region."] = ""
    web_identity_token_file: Annotated[str, "File with the token that shows who we are, for web-identity."] = ""
    timeout_s: Annotated[
        float,
        "How long the object store may take over one step, with all repetitions, in seconds, before it counts as away.",
        Interval(ge=0.5, le=3600),
    ] = 30.0
    cache_gb: Annotated[
        float,
        "Most that copies of an object store's files take below the data directory, in GiB; runners start from them. The "
        "newest stays, whatever its size.",
        Interval(ge=0, le=1_000_000),
    ] = 20.0
    keep_unused_days: Annotated[
        float,
        "How long files are kept that no version uses any more, in days: those of rejected versions, and what a validation "
        "made and did not choose.",
        Interval(ge=1, le=36500),
    ] = 7.0
    master_keys_file: Annotated[
        str,
        "File with the master keys that seal model files at rest, one a line (`modelkeep storage new-key` makes one): the last "
        "seals, all open. Empty: files are stored as they come.",
    ] = ""

    def __post_init__(self) -> None:
        """Hide a secret that is given as a text."""
        if isinstance(self.secret_access_key, str):
            object.__setattr__(self, "secret_access_key", Secret(self.secret_access_key))


class Blob(msgspec.Struct, frozen=True):
    """A stored file: its SHA-256 in hex and its length in bytes."""

    digest: str
    size: int


class Stored(msgspec.Struct, frozen=True):
    """A blob as it lies in a store: its SHA-256 in hex, the bytes that it takes, and when it was last written (Unix time)."""

    digest: str
    size: int
    at: float


class BlobStore(Protocol):
    """Keeps files under the SHA-256 of their content. Once `put` returned, the blob survives a crash and a power cut.

    Every method raises `StorageUnavailable` where the store is remote and does not answer in time. A digest that is no SHA-256
    in hex is `NotFound`.
    """

    async def put(self, chunks: AsyncIterator[bytes], *, max_bytes: int) -> Blob:
        """Store a stream, hashing it on the way; raises `TooLarge` past `max_bytes`, `StorageFull` when the disk is.

        Nothing is left behind when the stream or the store fails. What is there already is not stored twice, and a damaged
        copy is replaced.
        """
        ...

    def read(self, digest: str, *, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the blob's bytes from `start` to before `end`; raises `NotFound`.

        Whoever reads the whole blob gets its last piece only if all of them have the digest; otherwise `DamagedFile` is
        raised.
        """
        ...

    async def size(self, digest: str) -> int:
        """Return the blob's length in bytes; raises `NotFound`. It is there for good: a copy on this machine does not count."""
        ...

    async def open(self, digest: str) -> int:
        """Return a read-only descriptor of a file with the blob's bytes, fetched first where they are elsewhere.

        The caller closes it. Raises `NotFound`, and `DamagedFile` where the store had to read the bytes and found them so.
        """
        ...

    async def remove(self, digest: str) -> None:
        """Forget a blob; one that is not there is forgotten already. Who has it open can go on reading."""
        ...

    def stored(self) -> AsyncIterator[Stored]:
        """Yield the blobs that are there. One that comes or goes meanwhile may be among them or not."""
        ...

    async def sweep(self) -> int:
        """Remove what killed uploads have left behind on this machine; returns how many files that were."""
        ...


class NotingStore(BlobStore, Protocol):
    """A blob store that also keeps a few bytes beside its blobs, under any digest. `remove` forgets a blob and its note."""

    async def keep_note(self, digest: str, note: bytes) -> None:
        """Store a few bytes beside the blobs under a digest, whole or not at all; replaces an earlier note."""
        ...

    async def note(self, digest: str) -> bytes:
        """Return the note; raises `NotFound`."""
        ...

    def notes(self) -> AsyncIterator[str]:
        """Yield the digests that have a note."""
        ...


class StoragePlugin(NotingStore, Protocol):
    """What an entry point of `modelkeep.storage` names."""

    @classmethod
    def create(cls, folder: Path, settings: StorageSettings) -> Self:
        """Return the store; `folder` is its own on this machine. Raises `Invalid` for settings that cannot be used."""
        ...


async def verified(pieces: AsyncGenerator[bytes, None], digest: str) -> AsyncGenerator[bytes, None]:
    """Yield the pieces of a whole blob, but the last only when all together have the digest; else raises `DamagedFile`."""
    seen = hashlib.sha256()
    held = b""
    async with aclosing(pieces) as source:
        async for piece in source:
            if held:
                yield held
            seen.update(piece)
            held = piece
    if seen.hexdigest() != digest:
        raise DamagedFile
    if held:
        yield held
