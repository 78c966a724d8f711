"""Has a version's hooks tried before its model: whether they load, and what preprocess makes of the sample.

The model inside is then inspected by itself on those rows, so that it is compiled, compared and optimised as if it had come
without hooks: an answer that postprocess has made coarse could hide a difference.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from modelkeep.contracts.hooks import FILE, FUNCTIONS, Hooks
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import ModelFacts
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.sandbox.hooks import UNNAMED
from modelkeep.worker.samples import RefusedError, Sample, fit, sample_of
from modelkeep.worker.trial import StartRunner, Trial

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.generic]]

_AT_ONCE = 64
_MOST_VALUES = 1 << 22
"""How many numbers of what preprocess returned are kept, as Python's own: rows beyond that are left alone."""


class Rehearsed(NamedTuple):
    """The hooks with their functions, and what the model inside will be given."""

    hooks: Hooks
    sample: Sample | None
    calibration: Sample | None


async def rehearsed(
    start_runner: StartRunner, spec: RunnerSpec, sample: Sample | None, calibration: Sample | None
) -> Rehearsed:
    """Try the hooks of `spec` alone, in a runner of their own; raises `RefusedError`."""
    assert spec.hooks is not None  # noqa: S101 - nothing else is rehearsed
    hooks = spec.hooks
    spec = msgspec.structs.replace(spec, hooks=msgspec.structs.replace(hooks, alone=True))
    async with start_runner(spec, sample.columns if sample else ()) as session:
        trial = Trial(session, spec.limits, given=sample is not None)
        facts = (await trial.load()).facts
        functions = tuple(one for one in FUNCTIONS if one in facts.details.get("hooks", ""))
        hooks = msgspec.structs.replace(hooks, functions=functions)
        if FUNCTIONS[0] not in functions:
            return Rehearsed(hooks, sample, calibration)
        if sample is None:
            raise RefusedError(Reason.SAMPLE_NEEDED, f"{FILE} has a preprocess: a sample shows what callers send.")
        inside = await _prepared(trial, facts, sample)
        return Rehearsed(hooks, inside, await _prepared(trial, facts, calibration) if calibration else None)


def of_hooks(error: RefusedError) -> RefusedError:
    """Return the refusal of a model inside over what preprocess gave it, in the words of who wrote that."""
    if error.rejection.code not in {Reason.SAMPLE_MISMATCH, Reason.SAMPLE_UNREADABLE}:
        return error
    return RefusedError(Reason.HOOKS_UNUSABLE, f"What preprocess makes of the sample: {error.rejection.detail}")


async def _prepared(trial: Trial, facts: ModelFacts, sample: Sample) -> Sample:
    """What preprocess makes of a sample, as a sample of the model inside."""
    import numpy as np

    rows = fit(sample, facts.signature)
    count = len(next(iter(rows.values())))
    parts = [
        await trial.run({name: np.ascontiguousarray(array[at : at + _AT_ONCE]) for name, array in rows.items()})
        for at in range(0, count, _AT_ONCE)
    ]
    try:
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    except (KeyError, ValueError) as error:
        raise RefusedError(Reason.HOOKS_UNUSABLE, f"preprocess answers {_AT_ONCE} rows otherwise than others.") from error
    return _as_pictures(whole) if facts.signature.image else _as_rows(whole)


def _as_pictures(prepared: "Arrays") -> Sample:
    pictures = [one for array in prepared.values() for one in array.reshape(-1).tolist()]
    if len(prepared) != 1 or not all(isinstance(one, bytes) for one in pictures):
        raise RefusedError(Reason.HOOKS_UNUSABLE, "preprocess is to return encoded pictures, as bytes, one a row.")
    return Sample(pictures=tuple(pictures))


def _as_rows(prepared: "Arrays") -> Sample:
    width = sum(array[0].size if array.dtype != object else 1 for array in prepared.values())
    values = {name: _listed(array[: max(1, _MOST_VALUES // max(1, width))]) for name, array in prepared.items()}
    try:
        return sample_of(values[UNNAMED] if list(values) == [UNNAMED] else values)
    except RefusedError as error:
        raise of_hooks(error) from error


def _listed(array: "NDArray[np.generic]") -> Any:  # noqa: ANN401 - nested lists
    """An array as JSON would have it: what is missing is None."""
    import numpy as np

    if array.dtype.kind == "f" and np.isnan(array).any():
        gaps = array.astype(object)
        gaps[np.isnan(array)] = None
        return gaps.tolist()
    return array.tolist()
