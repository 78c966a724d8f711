"""The history of predictions, and having them answered again."""

import base64
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from modelkeep.client.errors import Invalid
from modelkeep.client.inputs import are_pictures, encode, pictures_in, rows_in
from modelkeep.client.models import model, written
from modelkeep.client.results import Listing, RecordedPrediction, Replay
from modelkeep.client.server import Server, growing, part, until, version_path
from modelkeep.client.steps import Ask, Save, Steps, Work

_MOMENTS = frozenset({"since", "until"})
_FILTERS = frozenset({"id", "request_id", "deployment", "version", "key", "user", "outcome", "since", "until"})


def predictions(server: Server, /, *, limit: int = 50, **wanted: object) -> Steps[list[RecordedPrediction]]:
    """Return the newest `limit` predictions of the history, without what went in and came out.

    `wanted`: id, request_id, deployment, version (id or number), key (its id, or a session's), user (the id of who asked),
    outcome ("ok", "rejected", "error", "degraded"), since and until (a datetime, ISO text or Unix seconds).
    """
    return Listing((yield from server.items("/predictions", RecordedPrediction.read, most=limit, **filters(wanted, _FILTERS))))


def prediction(server: Server, prediction_id: str) -> Steps[RecordedPrediction]:
    """Return one prediction of the history, with what went in and came out."""
    return RecordedPrediction.read((yield from server.get(f"/predictions/{part(prediction_id)}")))


def export_predictions(
    server: Server,
    /,
    to: str | PathLike[str],
    *,
    format: str | None = None,  # noqa: A002 - the field's word, as in the API
    **wanted: object,
) -> Steps[Path]:
    """Write the predictions of the history to a file, newest first, and return its path.

    `format` is "jsonl" or "parquet"; without it, the file's name decides. `wanted` is as for `predictions`.
    """
    target = Path(to)
    form = format or ("parquet" if target.suffix == ".parquet" else "jsonl")
    query = {"format": form} | filters(wanted, _FILTERS)

    def fetch(file: BinaryIO) -> Steps[None]:
        def step(ask: Ask) -> Save:
            return Save(ask, file.write, len)

        return server.saved("/predictions/export", step, params=query)

    yield from written(target, fetch)
    return target


def replay(
    server: Server,
    name: str,
    version: int | None = None,
    *,
    last: int | None = None,
    predictions: Sequence[str] | None = None,
    rows: object = None,
    days: int | None = None,
    candidate: int | None = None,
    wait: bool = True,
    timeout: float = 600.0,
    on_state: Callable[[Replay], None] | None = None,
) -> Steps[Replay]:
    """Have the uploaded file of a version answer again, beside the one that serves, and return how the answers compare.

    One of: the `last` recorded predictions (100 where nothing is said), `predictions` by id, or `rows` as `predict` takes
    them; or those of the last `days`. A `candidate` is another version that answers the same, compared as a shadow is.
    `version`: the one that serves, or else the newest. `on_state(replay)` hears how far it is.
    """
    number = version
    if number is None:
        found = yield from model(server, name)
        number = found.serving_version or found.latest_version or 1
    if rows is not None:
        rows = yield Work(partial(_again, rows))
    body: dict[str, Any] = {"last": last, "predictions": None if predictions is None else list(predictions), "rows": rows}
    if days is None and all(one is None for one in body.values()):
        body["last"] = 100
    body |= {name: value for name, value in {"days": days, "candidate": candidate}.items() if value is not None}
    path, headers = f"{version_path(name, number)}/replays", {"content-type": "application/json"}
    asked = Replay.read((yield from server.document("POST", path, content=encode(body), headers=headers)))
    return (yield from wait_replay(server, asked.id, timeout=timeout, on_state=on_state)) if wait else asked


def wait_replay(
    server: Server, replay_id: str, *, timeout: float = 600.0, on_state: Callable[[Replay], None] | None = None
) -> Steps[Replay]:
    """Wait until a replay has ended and return it, failed ones too; raises `TimedOut` when late."""

    def look() -> Steps[Replay]:
        found = yield from replay_result(server, replay_id)
        if on_state is not None:
            on_state(found)
        return found

    def late(seen: Replay) -> str:
        return f"The replay {replay_id} is still {seen.state} after {timeout:g} s. It goes on by itself."

    return (yield from until(look, lambda seen: seen.settled, late, timeout=timeout, pauses=growing(0.05, 1.0)))


def replay_result(server: Server, replay_id: str) -> Steps[Replay]:
    """Return one replay: how far it is, and what came of it."""
    return Replay.read((yield from server.get(f"/replays/{part(replay_id)}")))


def replays(server: Server, name: str, version: int, *, limit: int = 50) -> Steps[list[Replay]]:
    """Return the newest replays of a version, without their rows."""
    return Listing((yield from server.items(f"{version_path(name, version)}/replays", Replay.read, most=limit)))


def _again(rows: object) -> object:
    """Return what `predict` takes as a replay does: pictures as base64 texts."""
    if are_pictures(rows):
        return [base64.b64encode(one.data).decode() for one in pictures_in(rows)]
    return rows_in(rows)


def filters(wanted: Mapping[str, object], known: Collection[str]) -> dict[str, str]:
    """Return filters as a query; raises `Invalid` for one that there is not."""
    unknown = wanted.keys() - known
    if unknown:
        raise Invalid(f"There is no filter {min(unknown)}: there are {', '.join(sorted(known))}.", code="invalid_filter")
    return {name: _told(name, value) for name, value in wanted.items() if value is not None}


def _told(name: str, value: object) -> str:
    """Return a filter's value as the server takes it: a moment as ISO text."""
    if name in _MOMENTS and isinstance(value, int | float) and not isinstance(value, bool):
        value = datetime.fromtimestamp(value, UTC)
    return value.isoformat() if isinstance(value, datetime) else str(value)
