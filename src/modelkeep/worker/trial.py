"""One runner on trial: loads, runs and times within the version's limits, and says in the uploader's terms how it failed."""

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, NoReturn, Protocol

from modelkeep.contracts.errors import Unavailable
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import Column
from modelkeep.contracts.snapshot import Limits, RunnerSpec
from modelkeep.sandbox import frames
from modelkeep.sandbox.connection import RunnerConnection, RunnerGone
from modelkeep.sandbox.control import Cause, Gone
from modelkeep.sandbox.loader import for_people, says_out_of_memory
from modelkeep.worker.samples import RefusedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]
    Conversion = tuple[frames.Compiled | frames.NotCompiled, dict[str, NDArray[np.generic]]]

_TIMING_S = 0.5
_TIMING_RUNS = 20
_FAREWELL_S = 2.0


class RunnerSession(Protocol):
    """A started runner."""

    connection: RunnerConnection

    async def gone(self) -> Gone:
        """Wait until the process has ended, and return why."""
        ...

    def kill(self, cause: Cause) -> None:
        """Have the process ended, for this cause."""
        ...


class StartRunner(Protocol):
    """Starts a runner that loads `spec`'s artifact, knowing the columns of the sample; it ends with the block."""

    def __call__(self, spec: RunnerSpec, sample: tuple[Column, ...], /) -> AbstractAsyncContextManager[RunnerSession]:
        """Return the block within which the runner lives."""
        ...


class Trial:
    """One session and what becomes of it. `given` says whether the rows are the uploader's own.

    `lost` is whether the process was lost over a run; `peak` is its highest resident memory, in bytes; `left` are the outputs
    that were left out.
    """

    def __init__(self, session: RunnerSession, limits: Limits, *, given: bool = False) -> None:
        self._session = session
        self._limits = limits
        self._given = given
        self.peak = 0
        self.lost = False
        self.left: tuple[str, ...] = ()

    async def load(self) -> frames.Loaded:
        """Wait until the model is loaded; raises `RefusedError` with why it will not be."""
        try:
            loaded = await asyncio.wait_for(asyncio.shield(self._session.connection.loaded), self._limits.load_timeout_s)
        except TimeoutError:
            self._session.kill(Cause.DEADLINE)
            await self._session.gone()
            seconds = self._limits.load_timeout_s
            raise RefusedError(Reason.LOAD_TIMEOUT, f"It was not loaded after {seconds:g} s.") from None
        except RunnerGone as error:
            await self._died(error, Reason.LOAD_TIMEOUT, Reason.LOAD_CRASHED)
        if isinstance(loaded, frames.LoadFailed):
            raise RefusedError(loaded.reason, loaded.detail, loaded.example)
        self.peak = loaded.rss_after
        return loaded

    async def run(self, tensors: "Arrays") -> "Arrays":
        """Return the answers to these rows; raises `RefusedError`."""
        _result, outputs = await self.answer(tensors)
        return outputs

    async def answer(self, tensors: "Arrays") -> "tuple[frames.Result, Arrays]":
        """Return the answers with what they cost; raises `RefusedError`."""
        try:
            message, outputs = await asyncio.wait_for(self._session.connection.run(tensors), self._limits.run_timeout_s)
        except TimeoutError:
            self.lost = True
            self._session.kill(Cause.DEADLINE)
            await self._session.gone()
            seconds = self._limits.run_timeout_s
            raise RefusedError(Reason.PREDICT_TIMEOUT, f"There was no answer after {seconds:g} s.") from None
        except RunnerGone as error:
            self.lost = True
            await self._died(error, Reason.PREDICT_TIMEOUT, Reason.PREDICT_CRASHED)
        if isinstance(message, frames.RunFailed):
            raise _failed(message, given=self._given)
        self.peak = max(self.peak, message.peak_rss)
        self.left = message.left or self.left
        return message, outputs

    async def median_ms(self, tensors: "Arrays") -> float:
        """Return how long a run of these rows takes in the runner, in milliseconds; raises `RefusedError`."""
        await self.run(tensors)
        taken: list[float] = []
        began = time.monotonic()
        while not taken or (len(taken) < _TIMING_RUNS and time.monotonic() - began < _TIMING_S):
            result, _outputs = await self.answer(tensors)
            taken.append(result.run_s + result.preprocess_s)
        return statistics.median(taken) * 1000

    async def compile(self, within_s: float) -> "tuple[frames.Compiled | frames.NotCompiled, Arrays]":
        """Ask for a faster form of the model; raises `RefusedError` when the process is lost over it."""
        return await self._converted(self._session.connection.compile, within_s)

    async def quantise(
        self, rows: "Arrays", within_s: float, *, narrow: bool, spare_ends: bool
    ) -> "tuple[frames.Compiled | frames.NotCompiled, Arrays]":
        """Ask for the model in 8-bit integers, by these calibration rows; raises as `compile`, or `frames.FrameError`."""
        ask = partial(self._session.connection.quantise, rows, narrow=narrow, spare_ends=spare_ends)
        return await self._converted(ask, within_s)

    async def _converted(
        self, ask: "Callable[[], asyncio.Future[Conversion]]", within_s: float
    ) -> "tuple[frames.Compiled | frames.NotCompiled, Arrays]":
        try:
            return await asyncio.wait_for(ask(), within_s)
        except TimeoutError:
            self.lost = True
            self._session.kill(Cause.DEADLINE)
            await self._session.gone()
            raise RefusedError(Reason.PREDICT_TIMEOUT, f"It was not compiled after {within_s:g} s.") from None
        except RunnerGone as error:
            self.lost = True
            await self._died(error, Reason.PREDICT_TIMEOUT, Reason.PREDICT_CRASHED)

    async def _died(self, error: RunnerGone, late: Reason, crashed: Reason) -> NoReturn:
        """Refuse for the reason that the process's end shows. One that closed its socket and lives on is ended."""
        try:
            gone = await asyncio.wait_for(self._session.gone(), _FAREWELL_S)
        except TimeoutError:
            self._session.kill(Cause.PROTOCOL)
            gone = await self._session.gone()
        if gone.cause in {Cause.NOT_STARTED, Cause.STOPPED}:
            raise Unavailable(f"The runner was ended: {gone.detail or gone.cause}.") from error
        last_words = for_people(gone.stderr.strip().rpartition("\n")[2])
        detail = "; ".join(part for part in (error.protocol_error, gone.detail, last_words) if part)
        if gone.cause is Cause.MEMORY or says_out_of_memory(gone.stderr):
            raise RefusedError(Reason.MEMORY_LIMIT, detail) from error
        raise RefusedError(late if gone.cause is Cause.DEADLINE else crashed, detail) from error


def repeated(tensors: "Arrays", count: int) -> "Arrays":
    """Return the rows, over and over until there are `count`."""
    import numpy as np

    return {name: np.take(array, np.arange(count) % len(array), axis=0) for name, array in tensors.items()}


def per_row(latency_ms: Mapping[str, float]) -> float:
    """Return the median time of a row in milliseconds, over the numbers of rows in `latency_ms`; infinite for none."""
    return statistics.median([taken / int(count) for count, taken in latency_ms.items()]) if latency_ms else float("inf")


def speed_of(latency_ms: Mapping[str, float], before_ms: Mapping[str, float]) -> float:
    """Return how many times faster a row is than before."""
    return round(per_row(before_ms) / per_row(latency_ms), 3)


def _failed(message: frames.RunFailed, *, given: bool) -> RefusedError:
    reasons = {
        "memory": Reason.MEMORY_LIMIT,
        "output_invalid": Reason.OUTPUT_INVALID,
        "bad_image": Reason.SAMPLE_UNREADABLE if given else Reason.PREDICT_FAILED,
    }
    return RefusedError(reasons.get(message.code, Reason.PREDICT_FAILED), message.detail)
