"""How a change to a deployment's settings is read: a JSON merge patch, in which null brings a default back.

Everything that is wrong is found at once, and each fault names its place. What the settings mean is said where they are
defined, in `contracts/snapshot.py`.
"""

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final, get_args, get_origin

import msgspec

from modelkeep.contracts.errors import FieldError
from modelkeep.contracts.rates import HIGHEST_RATE
from modelkeep.contracts.signature import Signature
from modelkeep.contracts.snapshot import DeploymentSettings, Keep
from modelkeep.control.deployments.errors import InvalidSettings

RANGES: Final[dict[str, tuple[float, float]]] = {
    "deadline_s": (0.001, 3600),
    "batching.max_rows": (1, 65536),
    "batching.max_wait_ms": (0, 10_000),
    "batching.latency_target_ms": (0.1, 3_600_000),
    "replicas.min": (1, 256),
    "replicas.max": (1, 256),
    "memory.idle_s": (1, 2_592_000),
    "concurrency": (1, 1_000_000),
    "rate.per_minute": (1, HIGHEST_RATE),
    "rate.burst": (1, HIGHEST_RATE),
    "recording.sample": (0, 1),
    "recording.keep_days": (1, 36_500),
}
_LONGEST_NAME: Final = 200
_ROOT: Final = "settings"


def merged(present: DeploymentSettings, patch: Mapping[str, Any], signature: Signature | None) -> DeploymentSettings:
    """Return the settings with `patch` merged into them; raises `InvalidSettings` with a field error for each fault.

    `signature` is that of the version that answers: names of `recording.fields` must be in it.
    """
    faults: list[FieldError] = []
    document = _merge(DeploymentSettings, msgspec.to_builtins(present), patch, _ROOT, faults)
    faults.extend(_unknown_names(patch, signature))
    if not faults:
        settings = msgspec.convert(document, DeploymentSettings)
        faults.extend(_out_of_range(settings))
    if faults:
        raise InvalidSettings(fields=tuple(faults))
    return settings


def field_names(signature: Signature) -> set[str]:
    """Return what recording can tell apart in a version: its inputs, their columns, and its outputs."""
    columns = {column for one in signature.inputs for column in one.columns}
    return columns | {one.name for one in (*signature.inputs, *signature.outputs)}


def _merge(
    kind: type[msgspec.Struct], present: Mapping[str, Any], patch: Mapping[str, Any], path: str, faults: list[FieldError]
) -> dict[str, Any]:
    """Return `present` with `patch` merged in, as far as it fits `kind`."""
    fields = {one.name: one.type for one in msgspec.structs.fields(kind)}
    after = dict(present)
    for name, value in patch.items():
        place = f"{path}.{name}"[:_LONGEST_NAME]
        if name not in fields:
            message = f"There is no such setting.{did_you_mean(name, fields)} There are: {', '.join(fields)}."
            faults.append(FieldError(place, "unknown_setting", message))
        elif value is None:
            after.pop(name, None)
        elif isinstance(fields[name], type) and issubclass(fields[name], msgspec.Struct):
            if _is_object(value, place, faults):
                after[name] = _merge(fields[name], after.get(name, {}), value, place, faults)
        elif get_origin(fields[name]) is dict:
            if _is_object(value, place, faults):
                after[name] = _merge_entries(after.get(name, {}), value, place, faults)
        elif _fits(value, fields[name], place, faults):
            after[name] = value
    return after


def _merge_entries(present: Mapping[str, Any], patch: Mapping[str, Any], path: str, faults: list[FieldError]) -> dict[str, Any]:
    after = dict(present)
    for name, value in patch.items():
        if value is None:
            after.pop(name, None)
        elif _fits(value, Keep, f"{path}.{name}"[:_LONGEST_NAME], faults):
            after[name] = value
    return after


def _is_object(value: object, place: str, faults: list[FieldError]) -> bool:
    if isinstance(value, Mapping):
        return True
    faults.append(FieldError(place, "wrong_type", "This is a group of settings: an object goes here."))
    return False


def _fits(value: object, kind: Any, place: str, faults: list[FieldError]) -> bool:  # noqa: ANN401 - any type msgspec reads
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        choices = [str(one) for one in get_args(kind)]
        if choices:
            hint = did_you_mean(value, choices) if isinstance(value, str) else ""
            faults.append(FieldError(place, "not_a_choice", f"One of {', '.join(choices)} goes here.{hint}"))
        else:
            faults.append(FieldError(place, "wrong_type", f"{_WORDS[kind]} goes here."))
        return False
    return True


_WORDS: Final = {float: "A number", int: "A whole number", bool: "true or false"}


def _unknown_names(patch: Mapping[str, Any], signature: Signature | None) -> Iterator[FieldError]:
    """A name with a slip in it would record what was to be hidden, and nobody would notice."""
    recording = patch.get("recording")
    given = recording.get("fields") if isinstance(recording, Mapping) else None
    if not isinstance(given, Mapping):
        return
    known = set() if signature is None else field_names(signature)
    for name, value in given.items():
        if value is not None and name not in known:
            message = f"The version that answers has no input, column or output of this name.{did_you_mean(name, known)}"
            if signature is None:
                message = "No version answers here yet, so its fields are not known: promote one first."
            yield FieldError(f"{_ROOT}.recording.fields.{name}"[:_LONGEST_NAME], "unknown_field", message)


def _out_of_range(settings: DeploymentSettings) -> Iterator[FieldError]:
    defaults = dict(_numbers(DeploymentSettings()))
    for name, value in _numbers(settings):
        low, high = RANGES[name]
        if value != defaults[name] and not low <= value <= high:
            message = f"A number from {low} to {high} goes here, or {defaults[name]:g}, which is the default."
            yield FieldError(f"{_ROOT}.{name}", "out_of_range", message)
    if 0 < settings.replicas.max < settings.replicas.min:
        yield FieldError(f"{_ROOT}.replicas.max", "out_of_range", "It is smaller than `replicas.min`.")
    if settings.rate.burst and not settings.rate.per_minute:
        yield FieldError(f"{_ROOT}.rate.burst", "out_of_range", "A burst needs a rate: set `rate.per_minute`, too.")


def _numbers(settings: msgspec.Struct, path: str = "") -> Iterator[tuple[str, float]]:
    for name, value in msgspec.structs.asdict(settings).items():
        if isinstance(value, msgspec.Struct):
            yield from _numbers(value, f"{path}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{path}{name}", value


def did_you_mean(given: str, known: Collection[str]) -> str:
    """Return a question that names what is nearest to a name that is not known; "" where nothing is near."""
    near = get_close_matches(given, known, 1)
    return f" Did you mean {near[0]!r}?" if near else ""
