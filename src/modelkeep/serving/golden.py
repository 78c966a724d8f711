"""A version's golden rows on a server: asked of each fresh runner before it answers anyone, and again on schedule."""

import hashlib
import os

import structlog

from modelkeep.contracts.snapshot import ServedVersion
from modelkeep.sandbox import frames, golden
from modelkeep.sandbox.connection import RunnerConnection
from modelkeep.serving.codec import Tensors

log = structlog.get_logger(__name__)


class GoldenRows:
    """The golden rows of one version, if it has any."""

    def __init__(self, version: ServedVersion) -> None:
        self._version = version
        self._rows: golden.Golden | None = None
        self.asked_at = 0.0
        self.differs = ""
        """How the last answer was another than at validation, where it serves all the same; "" where it was not."""

    def __bool__(self) -> bool:
        """Whether there are rows to ask."""
        return self._rows is not None

    def read(self, fd: int) -> None:
        """Take the rows from this file, which is closed; a file that is damaged is told of, and left alone."""
        try:
            # At a place, for other servers read from the same open file at the same time.
            data = b"" if self._rows is not None else os.pread(fd, golden.MAX_BYTES + 1, 0)
        finally:
            os.close(fd)
        if self._rows is not None:
            return
        if hashlib.sha256(data).hexdigest() != self._version.spec.golden:
            log.error("golden rows are damaged", version=self._version.id)
            return
        try:
            self._rows = golden.unpack(data)
        except frames.FrameError as error:
            log.error("golden rows cannot be read", version=self._version.id, error=str(error))  # noqa: TRY400 - it says it all

    async def ask(self, connection: RunnerConnection, otherwise: Tensors | None = None, *, check: bool = True) -> None:
        """Have a runner answer the rows, or without any, or without `check`, run `otherwise`.

        Raises `agreement.Differs`, or `RunnerGone`.
        """
        if self._rows is not None and check:
            message, outputs = await connection.run(self._rows.inputs)
            golden.check(self._rows, message, outputs)
        elif otherwise is not None:
            await connection.run(otherwise)
