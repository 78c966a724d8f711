"""The two forms of a version, each in a fresh runner: the uploaded file, and what serves. Often they are the same.

They are where file, runner plugin and precision are: an optimised version serves the uploaded file by another library.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final, Self

from modelkeep.contracts.snapshot import RunnerSpec, ServedVersion
from modelkeep.sandbox import frames
from modelkeep.serving.codec import Tensors
from modelkeep.worker.comparing import Answer, Part
from modelkeep.worker.recorded import Question
from modelkeep.worker.samples import RefusedError
from modelkeep.worker.trial import StartRunner, Trial

AT_ONCE: Final = 64
_ORIGINAL, _SERVING = "The uploaded file", "The compiled form"


class FormsFailedError(Exception):
    """A runner could not be loaded, or was lost over a row; the code says how, the sentence of which file.

    `unquoted` is the sentence without what the model said last.
    """

    def __init__(self, which: str, error: RefusedError) -> None:
        self.code: str = error.rejection.code.value
        self.unquoted = f"{which}: {error.rejection.advice}"
        super().__init__(f"{which}: {error.rejection.detail or error.rejection.advice}")


class Forms:
    """Answers questions by both files, the rows of one request together where the model needs that."""

    def __init__(self, serving: Trial, original: Trial, *, independent: bool, names: tuple[str, str]) -> None:
        self._names = names
        self._serving = serving
        self._original = original
        self._independent = independent

    @classmethod
    async def start(
        cls,
        stack: AsyncExitStack,
        start_runner: StartRunner,
        serving: ServedVersion,
        original: ServedVersion,
        *,
        names: tuple[str, str] = (_ORIGINAL, _SERVING),
    ) -> Self:
        """Start and load the runners, which end with `stack`; raises `FormsFailedError`, which says which by these names."""
        trials: dict[tuple[str, str, str], Trial] = {}
        for which, version in zip(names, (original, serving), strict=True):
            form = _form(version.spec)
            if form in trials:
                continue
            session = await stack.enter_async_context(start_runner(version.spec, ()))
            trial = trials[form] = Trial(session, version.spec.limits)
            try:
                await trial.load()
            except RefusedError as error:
                raise FormsFailedError(which, error) from error
        independent = serving.independent and original.independent
        return cls(trials[_form(serving.spec)], trials[_form(original.spec)], independent=independent, names=names)

    async def ask(self, question: Question) -> AsyncIterator[Part]:
        """Yield the answers of both; raises `FormsFailedError` when a runner is lost over them."""
        step = AT_ONCE if self._independent else question.rows
        for start in range(0, question.rows, step):
            rows = min(step, question.rows - start)
            part = await self._answered(question, start, rows)
            refused = isinstance(part.serving, str) or isinstance(part.original, str)
            if not refused or rows == 1 or not self._independent:
                yield part
                continue
            for at in range(start, start + rows):  # one bad row fails alone
                yield await self._answered(question, at, 1)

    async def _answered(self, question: Question, start: int, rows: int) -> Part:
        tensors = {name: array[start : start + rows] for name, array in question.tensors.items()}
        if self._serving is self._original:
            answer, seconds = await _run(self._names[0], self._original, tensors)
            return Part(question, start, rows, answer, answer, seconds, seconds)
        both = (_run(self._names[1], self._serving, tensors), _run(self._names[0], self._original, tensors))
        serving, original = await asyncio.gather(*both, return_exceptions=True)
        for one in (serving, original):
            if isinstance(one, BaseException):
                raise one
        return Part(question, start, rows, serving[0], original[0], serving[1], original[1])  # type: ignore[index]


def _form(spec: RunnerSpec) -> tuple[str, str, str]:
    return spec.digest, spec.runner, spec.precision


async def _run(which: str, trial: Trial, tensors: Tensors) -> tuple[Answer, float]:
    """Return the outputs, or the code of the error that the model answered instead, and the seconds that the run took."""
    try:
        result, outputs = await trial.answer(tensors)
    except frames.FrameError:
        return "too_large", 0.0
    except RefusedError as error:
        if trial.lost:
            raise FormsFailedError(which, error) from error
        return error.rejection.code.value, 0.0
    return dict(outputs), result.run_s + result.preprocess_s
