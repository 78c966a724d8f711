"""Uploading a model, and following a version until it is validated and answers."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from os import PathLike
from time import monotonic
from typing import Any
from uuid import uuid4

from modelkeep.client.deployments import deployment
from modelkeep.client.deployments import promote as promoted
from modelkeep.client.errors import NotAllowed, Rejected, ServerUnreachable, TimedOut, Unavailable
from modelkeep.client.models import version as version_now
from modelkeep.client.progress import Progress, shown
from modelkeep.client.results import Version
from modelkeep.client.server import Server, growing, model_path, until, version_path
from modelkeep.client.steps import Pause, Steps, Work
from modelkeep.client.upload import Sent, Upload, prepare

_LONGEST_SILENCE = 15.0  # seconds without news of a validation before its state is asked for again
_AFTER_SILENCE = 0.2
_AFTER_UPLOAD = 600.0  # seconds that the server may take to store the last bytes of a large upload


def push(
    server: Server,
    model: object,
    name: str,
    *,
    sample: object = None,
    labels: str | PathLike[str] | Sequence[str] | None = None,
    preprocess: str | PathLike[str] | Mapping[str, Any] | None = None,
    description: str = "",
    format: str | None = None,  # noqa: A002 - the field's word, as in the API
    compile: str = "auto",  # noqa: A002 - the same
    optimise: str = "auto",
    calibration: object = None,
    accuracy_budget: float | str = 0,
    hooks: str | PathLike[str] | None = None,
    workspace: str | None = None,
    parent: int | str | None = None,
    training: Mapping[str, Any] | None = None,
    wait: bool = True,
    promote: bool = False,
    timeout: float = 600.0,
    progress: bool = False,
    on_packing: Progress | None = None,
    on_progress: Progress | None = None,
    on_state: Callable[[Version], None] | None = None,
) -> Steps[Version]:
    """Upload an estimator, a file, or a folder that is one model, as the next version of `name`, made if it is new.

    Waits until the version is ready, and, where it is the one that answers predictions, until it does; raises `Rejected`
    with advice when it is refused. `wait=False` returns as soon as the file is stored. An estimator travels as skops where
    skops trusts all that is in it, else as joblib, if allowed. `format="joblib"` or `"skops"` takes this one.

    `sample`: a few rows as the model takes them (DataFrame, array, lists, or a file), or a picture; estimators fitted on
    plain arrays need it. `labels`: class names in the order of the outputs, or a text file with one a line. `preprocess`:
    for pictures, "imagenet", a dict or a JSON file. `compile`: "off" serves the file as it is, even where a faster form of
    the model was found that agrees with it. `optimise`: how it is made faster for the server's host: "auto" takes what is
    fastest and agrees, "off" nothing, "openvino", "bf16" or "int8" this or nothing, "threads" as many threads as are fastest.
    `calibration`: at least 40 different rows or pictures, as for `sample`; `accuracy_budget`: the share of answers that may
    change for speed, as 0.01 or "1%"; both are needed for "bf16", and "int8" is tried by "auto" where both are given. `hooks`:
    a Python file with `preprocess`, `postprocess` or both, which go around the model; the sample is then what callers send.
    `parent`: the version that it was made from; `training`: a dict of how it came to be (job, code, revision, by, data).
    `workspace`: where a new model is made; yours, where you have but one.
    `promote`: let the version answer once it is ready; a model's first does so by itself. `progress` shows a bar.
    `on_packing(done, total)` hears of a folder's bytes, `on_progress(sent, total)` of those that are sent,
    `on_state(version)` of the states of validation.
    """
    rows: dict[str, Any] = {"sample": sample, "labels": labels, "calibration": calibration, "accuracy_budget": accuracy_budget}
    said: dict[str, Any] = {"preprocess": preprocess, "description": description, "format": format, "parent": parent}
    how: dict[str, Any] = {"compile": compile, "optimise": optimise, "hooks": hooks, "training": training}
    upload = yield Work(partial(prepare, model, **rows, **said, **how, on_packing=on_packing))
    with closing(upload), shown(f"Uploading {upload.filename}", on_progress, bar=progress) as tell:
        yield from _check(server, name, upload, _create(workspace))
        version = yield from _upload(server, name, upload, Sent(upload.size, tell), _create(workspace))
    if not wait:
        return version
    version = yield from wait_ready(server, name, version.number, timeout=timeout, on_state=on_state)
    if promote:
        yield from promoted(server, name, version.number)
    if (yield from deployment(server, name)).version == version.number:
        yield from wait_serving(server, name, version.number, timeout=timeout)
    return version


def wait_ready(
    server: Server, name: str, number: int, *, timeout: float = 600.0, on_state: Callable[[Version], None] | None = None
) -> Steps[Version]:
    """Wait until the version is validated and return it; raises `Rejected` when it was refused, `TimedOut` when late."""
    deadline = monotonic() + timeout
    version = yield from version_now(server, name, number)
    while True:
        if on_state is not None:
            on_state(version)
        if version.state == "rejected":
            raise Rejected(version)
        if version.settled:
            return version
        if monotonic() >= deadline:
            raise TimedOut(f"{name} version {number} is still {version.state} after {timeout:g} s. It goes on by itself.")
        version = yield from _next_state(server, version)


def wait_serving(server: Server, name: str, number: int, *, timeout: float = 60.0) -> Steps[None]:
    """Wait until version `number` answers predictions; raises `TimedOut` when it does not come to that."""

    def late(_serves: object) -> str:
        return f"{name} version {number} is ready, but does not answer predictions after {timeout:g} s."

    yield from until(partial(_serves, server, name, number), bool, late, timeout=timeout, pauses=growing(0.02, 0.5))


def _check(server: Server, name: str, upload: Upload, create: Mapping[str, str]) -> Steps[None]:
    """Have the upload refused, if it will be, before its file is sent."""
    planned: dict[str, Any] = {"filename": upload.filename, "format": upload.fields.get("format", ""), "size": upload.size}
    if any(part == "hooks" for part, _content in upload.attachments):
        planned["hooks"] = True
    yield from server.document("POST", f"{model_path(name)}/versions/check", planned, params=create, repeat=True)


def _upload(server: Server, name: str, upload: Upload, sent: Sent, create: Mapping[str, str]) -> Steps[Version]:
    """Send the upload; once more if the connection breaks. Both carry one key, so that it cannot count twice."""

    def send() -> Steps[Any]:
        return server.document(
            "POST",
            f"{model_path(name)}/versions",
            headers={"idempotency-key": key},
            params=create,
            parts=partial(upload.parts, sent),
            told=sent.tell,
            patience=_AFTER_UPLOAD,
            end_when_lost=True,
        )

    key = uuid4().hex
    try:
        return Version.read((yield from send()))
    except ServerUnreachable as error:
        if error.code != "connection_lost":
            raise
    yield from server.returned()
    return Version.read((yield from send()))


def _next_state(server: Server, version: Version) -> Steps[Version]:
    """Return the version after its next change, or as it is now when none is heard of for a while."""
    heard: list[Version] = []

    def take(document: Any) -> bool:  # noqa: ANN401 - JSON
        found = Version.read(document)
        if found.state != version.state:
            heard.append(found)
        return bool(heard)

    try:
        path = f"{version_path(version.model, version.number)}/events"
        yield from server.events(path, take, silence=_LONGEST_SILENCE)
    except Unavailable:
        yield Pause(_AFTER_SILENCE)
        yield from server.returned()
    return heard[0] if heard else (yield from version_now(server, version.model, version.number))


def _serves(server: Server, name: str, number: int) -> Steps[bool]:
    """Ask the server that predicts; a key that may not predict gets the slower news that the control plane has."""
    try:
        answers = yield from server.answering(name)
    except NotAllowed:
        found = yield from deployment(server, name)
        return any(one.get("version") == number for one in found.serving)
    return answers is not None and answers["version"] == number and bool(answers["ready"] or answers.get("asleep"))


def _create(workspace: str | None) -> dict[str, str]:
    """Return the parameters that have a new model made."""
    return {"create": "true"} | ({} if workspace is None else {"workspace": workspace})
