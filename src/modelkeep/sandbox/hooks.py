"""Hooks around a version's model: `preprocess(inputs)` before it, `postprocess(outputs)` after it, of the uploader's own.

They are loaded in the locked-down runner and nowhere else. What they hand to the model is checked against its signature, as
the server does with what callers send: a model never sees names, datatypes or shapes that are not its own.
"""

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from modelkeep.contracts import calls, imports
from modelkeep.contracts.declared import declared
from modelkeep.contracts.hooks import FILE, FUNCTIONS
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad, Column, ModelFacts
from modelkeep.contracts.signature import EXACT, Dtype, Layout, Signature, TensorSpec
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.sandbox.imaging import PICTURES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = dict[str, Array]

UNNAMED = "output"
"""What an answer is called that is no dict."""

_MODULE = "hooks"
_FOLDER = "/hooks"  # there is none: it is how the file's own lines are known in a traceback


class HookFaultError(TypeError):
    """What a hook answered cannot go on to the model. That is no fault of the caller's."""


class Wrapping:
    """The hooks of one version, loaded. `functions` are those that there are, `facts` those of the whole, once it is whole."""

    facts: ModelFacts

    def __init__(self, source: bytes) -> None:
        """Import the file; raises `CannotLoad`."""
        module = _imported(source)
        self._said = getattr(module, "signature", None)
        self._before, self._after = (_function(module, name) for name in FUNCTIONS)
        self.functions = tuple(name for name in FUNCTIONS if getattr(module, name, None) is not None)
        if not self.functions:
            raise _unusable(f"{FILE} defines neither {' nor '.join(FUNCTIONS)}")
        self._texts: frozenset[str] = frozenset()
        self._inner: Signature | None = None

    def around(self, model: ModelFacts, spec: RunnerSpec, sample: Sequence[Column]) -> None:
        """Take in the model, or the model of pictures, that they go around; raises `CannotLoad`.

        What callers send is what they sent at validation, where that is over: then `spec` has a signature.
        """
        inner = model.signature if spec.hooks is None or spec.hooks.inner is None else spec.hooks.inner
        self._inner = inner
        signature = spec.signature or self._outer(inner, sample)
        self._take(signature)
        details = model.details | {"hooks": ", ".join(self.functions)}
        example = b"" if self._before is not None else model.example
        self.facts = msgspec.structs.replace(model, signature=signature, details=details, batch=0, example=example)

    def alone(self, *, pictures: bool, sample: Sequence[Column]) -> None:
        """Be tried without the model, so that preprocess shows what it makes of rows; raises `CannotLoad`.

        There are no inputs where there is no such hook.
        """
        signature = Signature(())
        if self._before is not None:
            signature = self._outer(Signature(PICTURES if pictures else (), image=pictures), sample)
        self._take(signature)
        self.facts = ModelFacts(
            Signature(signature.inputs, (), signature.image),
            framework="python",
            framework_version=platform.python_version(),
            details={"hooks": ", ".join(self.functions)},
        )

    def _outer(self, inner: Signature, sample: Sequence[Column]) -> Signature:
        """Return what callers of a model with this signature send and get; raises `CannotLoad`.

        Where preprocess changes what that is, the file's `signature` or the sample tells it. What postprocess answers is
        seen when it does.
        """
        told = Signature(inner.inputs)
        if self._before is not None and not inner.image:
            told = declared(self._said, sample, f"{FILE}, which has a preprocess,")
        outputs = inner.outputs if self._after is None else told.outputs
        return Signature(told.inputs, outputs, inner.image)

    def before(self, inputs: "Mapping[str, Array]") -> "Mapping[str, Array]":
        """Return what the model is asked, for what was sent; raises `HookFaultError`, or whatever preprocess raises."""
        if self._before is None:
            return inputs
        rows = len(next(iter(inputs.values())))
        given = {name: calls.texts(array) if name in self._texts else array for name, array in inputs.items()}
        answer = calls.arrays(FUNCTIONS[0], self._before(given), UNNAMED)
        for name, array in answer.items():
            if not array.ndim or len(array) != rows:
                shape = list(array.shape)
                raise HookFaultError(f"preprocess returned {name!r} of shape {shape} for {rows} rows: the rows are to be kept")
        return answer if self._inner is None else fitted(answer, self._inner)

    def after(self, outputs: "Mapping[str, Array]") -> "Arrays":
        """Return what is answered, for what the model answered; raises whatever postprocess raises. Rows are checked later."""
        if self._after is None:
            return dict(outputs)
        return calls.arrays(FUNCTIONS[1], self._after(dict(outputs)), UNNAMED)

    def _take(self, signature: Signature) -> None:
        if not signature.image:
            self._texts = frozenset(one.name for one in signature.inputs if one.dtype is Dtype.BYTES)


class Rehearsal:
    """Preprocess as if it were a model: validation asks it what the model inside will be given."""

    def __init__(self, wrapping: Wrapping) -> None:
        self._wrapping = wrapping
        self.facts = wrapping.facts

    def run(self, inputs: "Mapping[str, Array]") -> "Arrays":
        """Answer with what preprocess makes of these rows."""
        return dict(self._wrapping.before(inputs))


def fitted(answer: "Arrays", inner: Signature) -> "Arrays":
    """Return what preprocess answered as the model's inputs; raises `HookFaultError`.

    An answer without a name, or the only one, is the model's only input; columns by name are put together to a matrix.
    """
    only = inner.inputs[0]
    if len(inner.inputs) == 1 and len(answer) == 1 and (only.name in answer or UNNAMED in answer):
        answer = {only.name: next(iter(answer.values()))}
    elif inner.layout is Layout.MATRIX and only.columns and set(answer) == set(only.columns):
        answer = {only.name: _matrix(answer, only)}
    wanted = [one.name for one in inner.inputs]
    if set(answer) != set(wanted):
        raise HookFaultError(f"preprocess returned {', '.join(sorted(answer))}; the model takes {', '.join(sorted(wanted))}")
    return {one.name: _fitted(answer[one.name], one) for one in inner.inputs}


def _matrix(answer: "Arrays", spec: TensorSpec) -> "Array":
    columns = [_fitted(answer[name], TensorSpec(name, spec.dtype, (-1,), spec.nullable)) for name in spec.columns]
    return np.stack(columns, axis=1)


def _fitted(array: "Array", spec: TensorSpec) -> "Array":
    wanted = spec.shape[1:]
    if array.ndim == 1 and wanted == (1,):
        array = array[:, None]
    lengths = zip(array.shape[1:], wanted, strict=False)
    if array.ndim != len(spec.shape) or any(length != axis for length, axis in lengths if axis != -1):
        shapes = f"{list(array.shape)}; the model takes {list(spec.shape)}"
        raise HookFaultError(f"preprocess returned {spec.name!r} of shape {shapes}")
    if spec.dtype is Dtype.BYTES:
        if array.dtype != object:
            raise HookFaultError(f"preprocess returned {spec.name!r} of {array.dtype.name}; the model takes texts")
        return array
    target = np.dtype(spec.dtype.numpy)
    with np.errstate(over="ignore"):
        cast = array.astype(target, copy=False) if np.can_cast(array.dtype, target, "same_kind") else None
    if cast is None or (target.kind in "iu" and not np.array_equal(cast, array)):
        raise HookFaultError(f"preprocess returned {spec.name!r} of {array.dtype.name}; the model takes {target.name}")
    if target.kind == "f":
        _check_floats(cast, array, spec)
    return cast


def _check_floats(cast: "Array", array: "Array", spec: TensorSpec) -> None:
    """Refuse numbers that a caller would not be let send: infinite ones, missing ones, whole ones that no float is."""
    wrong = ""
    if np.isinf(cast).any():
        wrong = f"a number that is infinite, or too large for {spec.dtype}"
    elif not spec.nullable and np.isnan(cast).any():
        wrong = "a missing value, and the model takes none there"
    elif array.dtype.kind in "iu" and (np.abs(array.astype(np.float64)) >= EXACT).any() and not _are_exact(array):
        wrong = "a whole number that no float is exactly"
    if wrong:
        raise HookFaultError(f"preprocess returned {spec.name!r} with {wrong}")


def _are_exact(array: "Array") -> bool:
    return all(int(float(value)) == value for value in array.reshape(-1).tolist())


def _imported(source: bytes) -> ModuleType:
    """The file as a module of its own, which no other part of the process imports."""
    module = ModuleType(_MODULE)
    module.__file__ = f"{_FOLDER}/{FILE}"
    sys.modules[_MODULE] = module  # dataclasses look theirs up there
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unusable(f"{FILE} is not text in UTF-8") from error
    try:
        exec(compile(text, module.__file__, "exec"), module.__dict__)  # noqa: S102 - this is what a runner of class "code" is for
    except MemoryError:
        raise
    except Exception as error:
        refusal = imports.failed(error, _FOLDER, wheels=False)
        raise CannotLoad(Reason.HOOKS_UNUSABLE, refusal.detail) from error
    return module


def _function(module: ModuleType, name: str) -> Callable[[Any], Any] | None:
    function = getattr(module, name, None)
    if function is None:
        return None
    if not callable(function):
        raise _unusable(f"{name} in {FILE} is no function")
    why = calls.objection(function)
    if why:
        raise _unusable(f"{name} in {FILE} {why}")
    return function  # type: ignore[no-any-return]


def _unusable(why: str) -> CannotLoad:
    return CannotLoad(Reason.HOOKS_UNUSABLE, f"{why}.")
