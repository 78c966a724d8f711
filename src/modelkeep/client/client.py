"""The client itself: one method for each thing that Modelkeep does."""

import base64
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote
from uuid import uuid4

import httpx

from modelkeep.client.connection import Connection
from modelkeep.client.errors import Invalid, NotAllowed, Rejected, ServerUnreachable, TimedOut
from modelkeep.client.inputs import encode, pictures_in, rows_in
from modelkeep.client.results import Deployment, Key, Model, Prediction, RecordedPrediction, Replay, Version
from modelkeep.client.upload import Progress, Upload, prepare

DEFAULT_URL = "http://127.0.0.1:8080"
_API = "/api/v1"
_LONGEST_SILENCE = 15.0  # seconds without news of a validation before its state is asked for again
_FILTERS = frozenset({"id", "request_id", "deployment", "version", "key", "outcome", "since", "until"})
_CREATE = {"create": "true"}
_AFTER_UPLOAD = 600.0  # seconds that the server may take to store the last bytes of a large upload


class Client:
    """Talks to one Modelkeep server. Use it as a context manager, or call `close()`; threads may share it.

    `api_key`: a key with the scopes of what is done (`modelkeep keys create`). `timeout`: seconds to wait for an answer.
    `verify`: for https, True for the system's certificates or the path of a file with others.
    """

    def __init__(
        self, url: str = DEFAULT_URL, api_key: str | None = None, *, timeout: float = 30.0, verify: bool | str = True
    ) -> None:
        self._connection = Connection(url, api_key, timeout, verify=verify)

    @property
    def url(self) -> str:
        """The server's address."""
        return self._connection.url

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    # Uploading and predicting

    def push(
        self,
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
        wait: bool = True,
        promote: bool = False,
        timeout: float = 600.0,
        on_packing: Progress | None = None,
        on_progress: Progress | None = None,
        on_state: Callable[[Version], None] | None = None,
    ) -> Version:
        """Upload an estimator, a file, or a folder that is one model, as the next version of `name`, made if it is new.

        Waits until the version is ready, and, where it is the one that answers predictions, until it does; raises `Rejected`
        with advice when it is refused. `wait=False` returns as soon as the file is stored.

        `sample`: a few rows as the model takes them (DataFrame, array, lists, or a file), or a picture; estimators fitted on
        plain arrays need it. `labels`: class names in the order of the outputs, or a text file with one a line. `preprocess`:
        for pictures, "imagenet", a dict or a JSON file. `compile`: "off" serves the file as it is, even where a faster form of
        the model was found that agrees with it. `optimise`: how it is made faster for the server's host: "auto" takes what is
        fastest and agrees, "off" nothing, "openvino", "bf16" or "int8" this or nothing. `calibration`: at least 40 different
        rows or pictures, as for `sample`; `accuracy_budget`: the share of answers that may change for speed, as 0.01 or "1%";
        both are needed for "bf16", and "int8" is tried by "auto" where both are given. `promote`: let the version answer once
        it is ready; a model's first does so by itself. `on_packing(done, total)` hears of a folder's bytes,
        `on_progress(sent, total)` of those that are sent, `on_state(version)` of the states of validation.
        """
        upload = prepare(
            model,
            sample=sample,
            labels=labels,
            preprocess=preprocess,
            description=description,
            format=format,
            compile=compile,
            optimise=optimise,
            calibration=calibration,
            accuracy_budget=accuracy_budget,
            on_packing=on_packing,
        )
        with closing(upload):
            self._check(name, upload)
            version = self._upload(name, upload, on_progress)
        if not wait:
            return version
        version = self.wait_ready(name, version.number, timeout=timeout, on_state=on_state)
        if promote:
            self.promote(name, version.number)
        if self.deployment(name).version == version.number:
            self.wait_serving(name, version.number, timeout=timeout)
        return version

    def predict(self, name: str, inputs: object, *, top_k: int | None = None) -> Prediction:
        """Ask the deployment `name` for predictions.

        `inputs` are rows (lists, a numpy array, a DataFrame, a dict of columns or of named tensors, a record, a list of
        records), or pictures (a path, bytes, a PIL image, or a list of these). `top_k`: how many labels to name for each.
        """
        path = f"{_API}/predict/{_part(name)}"
        pictures = pictures_in(inputs)
        if pictures:
            files = [("file", (picture.name, picture.data, "application/octet-stream")) for picture in pictures]
            query = {} if top_k is None else {"top_k": top_k}
            return Prediction.read(self._connection.document("POST", path, repeat=True, files=files, params=query))
        body: dict[str, Any] = {"inputs": rows_in(inputs)}
        if top_k is not None:
            body["top_k"] = top_k
        headers = {"content-type": "application/json"}
        return Prediction.read(self._connection.document("POST", path, repeat=True, content=encode(body), headers=headers))

    def wait_ready(
        self, name: str, number: int, *, timeout: float = 600.0, on_state: Callable[[Version], None] | None = None
    ) -> Version:
        """Wait until the version is validated and return it; raises `Rejected` when it was refused, `TimedOut` when late."""
        deadline = time.monotonic() + timeout
        version = self.version(name, number)
        while True:
            if on_state is not None:
                on_state(version)
            if version.state == "rejected":
                raise Rejected(version)
            if version.settled:
                return version
            if time.monotonic() >= deadline:
                raise TimedOut(f"{name} version {number} is still {version.state} after {timeout:g} s. It goes on by itself.")
            version = self._next_state(version)

    def wait_serving(self, name: str, number: int, *, timeout: float = 60.0) -> None:
        """Wait until version `number` answers predictions; raises `TimedOut` when it does not come to that."""
        deadline = time.monotonic() + timeout
        pause = 0.02
        while not self._serves(name, number):
            if time.monotonic() >= deadline:
                raise TimedOut(f"{name} version {number} is ready, but does not answer predictions after {timeout:g} s.")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    # Models and versions

    def models(self, *, archived: bool = False) -> list[Model]:
        """Return the models, by name; with `archived`, those put away."""
        return [Model.read(one) for one in self._items("/models", archived=str(archived).lower())]

    def model(self, name: str) -> Model:
        """Return one model."""
        return Model.read(self._get(f"/models/{_part(name)}"))

    def versions(self, name: str) -> list[Version]:
        """Return the versions of a model, newest first."""
        return [Version.read(one) for one in self._items(f"/models/{_part(name)}/versions")]

    def version(self, name: str, number: int) -> Version:
        """Return one version."""
        return Version.read(self._get(_version_path(name, number)))

    def describe(self, name: str, description: str, *, version: int | None = None) -> Model | Version:
        """Change what is said about a model, or about one of its versions."""
        path = f"/models/{_part(name)}" if version is None else _version_path(name, version)
        document = self._connection.document("PATCH", _API + path, json={"description": description})
        return Model.read(document) if version is None else Version.read(document)

    def archive(self, name: str, *, version: int | None = None) -> Model | Version:
        """Put a model away, or one of its versions: it answers no longer, and nothing of it is lost."""
        if version is None:
            return Model.read(self._post(f"/models/{_part(name)}/archive"))
        return Version.read(self._post(f"{_version_path(name, version)}/archive"))

    def restore(self, name: str) -> Model:
        """Take an archived model back."""
        return Model.read(self._post(f"/models/{_part(name)}/restore"))

    def download(self, name: str, number: int, to: str | PathLike[str] = ".", *, on_progress: Progress | None = None) -> Path:
        """Write the file of a version to the path `to`, or into that directory, and return its path.

        The content is compared with the digest that the server holds; a broken download leaves nothing behind.
        """
        version = self.version(name, number)
        target = Path(to)
        if target.is_dir():
            target /= Path(version.filename).name or f"{name}-{number}"
        unfinished = target.with_name(f".{target.name}.{uuid4().hex[:8]}.part")
        try:
            self._fetch(version, unfinished, on_progress)
            unfinished.replace(target)
        except OSError as error:
            raise Invalid(f"{target} cannot be written: {error.strerror}.", code="file_unwritable") from error
        finally:
            unfinished.unlink(missing_ok=True)
        return target

    # Deployments

    def deployments(self) -> list[Deployment]:
        """Return the deployments."""
        return [Deployment.read(one) for one in self._items("/deployments")]

    def deployment(self, name: str) -> Deployment:
        """Return one deployment."""
        return Deployment.read(self._get(f"/deployments/{_part(name)}"))

    def promote(self, name: str, version: int, *, revision: int | None = None) -> Deployment:
        """Let `version` answer at the deployment `name`. With `revision`, only if it was not changed since that one."""
        headers = {} if revision is None else {"if-match": f'"{revision}"'}
        path = f"{_API}/deployments/{_part(name)}/promote"
        document = self._connection.document("POST", path, repeat=True, json={"version": version}, headers=headers)
        return Deployment.read(document)

    def configure(self, name: str, settings: Mapping[str, Any], *, revision: int | None = None) -> Deployment:
        """Change settings of a deployment: what is not named stays, None brings a default back.

        With `revision`, only if it was not changed since that one; otherwise `Conflict` is raised.
        """
        headers = {} if revision is None else {"if-match": f'"{revision}"'}
        path = f"{_API}/deployments/{_part(name)}"
        return Deployment.read(self._connection.document("PATCH", path, json={"settings": settings}, headers=headers))

    # Keys

    def setup(self, token: str, *, name: str = "admin") -> Key:
        """Make the first administrator from the one-time token that the server printed; returns a key with its secret."""
        return Key.read(self._post("/setup", {"token": token, "name": name})["key"])

    def me(self) -> Key:
        """Return the key in use."""
        return Key.read(self._get("/me")["key"])

    def keys(self) -> list[Key]:
        """Return the API keys, without their secrets."""
        return [Key.read(one) for one in self._items("/keys")]

    def create_key(
        self, name: str, scopes: Sequence[str], *, expires_in_days: int | None = None, rate: str = "unlimited"
    ) -> Key:
        """Make an API key; `secret` in the answer is shown this once. `rate`: requests a minute, as "100/min"."""
        body = {"name": name, "scopes": list(scopes), "expires_in_days": expires_in_days, "rate": rate}
        return Key.read(self._post("/keys", body))

    def revoke_key(self, key_id: str) -> None:
        """Make a key worthless at once."""
        self._connection.document("DELETE", f"{_API}/keys/{_part(key_id)}")

    # What is allowed although it is dangerous

    def safety(self) -> Mapping[str, Any]:
        """Return the switches of the installation: what they are set to, by whom, when and why."""
        return dict(self._get("/safety"))

    def allow_code(self, *, allowed: bool = True, reason: str) -> Mapping[str, Any]:
        """Let files that can run code when they are loaded be uploaded, or no more; for administrators."""
        return dict(self._put("/safety/code-formats", {"allowed": allowed, "reason": reason}))

    def accept_sandbox(self, level: str | None, *, reason: str) -> Mapping[str, Any]:
        """Let every model be loaded at this level of the lock-down ("L1", "L0"); None takes that back."""
        return dict(self._put("/safety/sandbox", {"accepted": level, "reason": reason}))

    # Health

    def health(self) -> Mapping[str, Any]:
        """Return what the server says of itself; needs no key."""
        return dict(self._connection.status("/healthz"))

    def readiness(self) -> Mapping[str, Any]:
        """Return whether the server is ready to answer predictions, and if not, why; needs no key."""
        return dict(self._connection.status("/readyz"))

    # Underneath

    def _get(self, path: str) -> Any:  # noqa: ANN401 - a JSON document
        return self._connection.document("GET", _API + path)

    def _post(self, path: str, body: object = None) -> Any:  # noqa: ANN401 - a JSON document
        return self._connection.document("POST", _API + path, json=body)

    def _put(self, path: str, body: object) -> Any:  # noqa: ANN401 - a JSON document
        return self._connection.document("PUT", _API + path, json=body)

    def _items(self, path: str, **query: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - values of the query
        wanted = {"limit": 200, **query}
        while True:
            page = self._connection.document("GET", _API + path, params=wanted)
            yield from page["items"]
            if page.get("next_cursor") is None:
                return
            wanted["cursor"] = page["next_cursor"]

    # History

    def predictions(self, *, limit: int = 50, **wanted: object) -> list[RecordedPrediction]:
        """Return the newest `limit` predictions of the history, without what went in and came out.

        `wanted`: id, request_id, deployment, version (id or number), key (its id), outcome ("ok", "rejected", "error",
        "degraded"), since and until (a datetime, ISO text or Unix seconds).
        """
        items = self._items("/predictions", **{"limit": min(limit, 500), **_filters(wanted)})
        return [RecordedPrediction.read(one) for one in islice(items, limit)]

    def prediction(self, prediction_id: str) -> RecordedPrediction:
        """Return one prediction of the history, with what went in and came out."""
        return RecordedPrediction.read(self._get(f"/predictions/{_part(prediction_id)}"))

    def export_predictions(self, to: str | PathLike[str], *, format: str | None = None, **wanted: object) -> Path:  # noqa: A002
        """Write the predictions of the history to a file, newest first, and return its path.

        `format` is "jsonl" or "parquet"; without it, the file's name decides. `wanted` is as for `predictions`.
        """
        target = Path(to)
        form = format or ("parquet" if target.suffix == ".parquet" else "jsonl")
        query = {"format": form} | _filters(wanted)
        unfinished = target.with_name(f".{target.name}.{uuid4().hex[:8]}.part")
        try:
            with self._connection.stream(f"{_API}/predictions/export", params=query) as response, unfinished.open("wb") as file:
                for piece in response.iter_bytes():
                    file.write(piece)
            unfinished.replace(target)
        except OSError as error:
            raise Invalid(f"{target} cannot be written: {error.strerror}.", code="file_unwritable") from error
        finally:
            unfinished.unlink(missing_ok=True)
        return target

    # Answering again

    def replay(
        self,
        name: str,
        version: int | None = None,
        *,
        last: int | None = None,
        predictions: Sequence[str] | None = None,
        rows: object = None,
        wait: bool = True,
        timeout: float = 600.0,
        on_state: Callable[[Replay], None] | None = None,
    ) -> Replay:
        """Have the uploaded file of a version answer again, beside the one that serves, and return how the answers compare.

        One of: the `last` recorded predictions (100 where nothing is said), `predictions` by id, or `rows` as `predict` takes
        them. `version`: the one that serves, or else the newest. `on_state(replay)` hears how far it is.
        """
        number = version
        if number is None:
            model = self.model(name)
            number = model.serving_version or model.latest_version or 1
        if rows is not None:
            pictures = [base64.b64encode(one.data).decode() for one in pictures_in(rows)]
            rows = pictures or rows_in(rows)
        body: dict[str, Any] = {"last": last, "predictions": None if predictions is None else list(predictions), "rows": rows}
        if all(one is None for one in body.values()):
            body["last"] = 100
        path, headers = f"{_API}{_version_path(name, number)}/replays", {"content-type": "application/json"}
        asked = Replay.read(self._connection.document("POST", path, content=encode(body), headers=headers))
        return self.wait_replay(asked.id, timeout=timeout, on_state=on_state) if wait else asked

    def wait_replay(
        self, replay_id: str, *, timeout: float = 600.0, on_state: Callable[[Replay], None] | None = None
    ) -> Replay:
        """Wait until a replay has ended and return it, failed ones too; raises `TimedOut` when late."""
        deadline, pause = time.monotonic() + timeout, 0.05
        while True:
            replay = self.replay_result(replay_id)
            if on_state is not None:
                on_state(replay)
            if replay.settled:
                return replay
            if time.monotonic() >= deadline:
                raise TimedOut(f"The replay {replay_id} is still {replay.state} after {timeout:g} s. It goes on by itself.")
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)

    def replay_result(self, replay_id: str) -> Replay:
        """Return one replay: how far it is, and what came of it."""
        return Replay.read(self._get(f"/replays/{_part(replay_id)}"))

    def replays(self, name: str, version: int, *, limit: int = 50) -> list[Replay]:
        """Return the newest replays of a version, without their rows."""
        items = self._items(f"{_version_path(name, version)}/replays", limit=min(limit, 500))
        return [Replay.read(one) for one in islice(items, limit)]

    def _check(self, name: str, upload: Upload) -> None:
        """Have the upload refused, if it will be, before its file is sent."""
        planned = {"filename": upload.filename, "format": upload.fields.get("format", ""), "size": upload.size}
        path = f"{_API}/models/{_part(name)}/versions/check"
        self._connection.document("POST", path, repeat=True, json=planned, params=_CREATE)

    def _upload(self, name: str, upload: Upload, on_progress: Progress | None) -> Version:
        """Send the upload; once more if the connection breaks. Both carry one key, so that it cannot count twice."""
        headers = {"idempotency-key": uuid4().hex}
        try:
            return self._send(name, upload, headers, on_progress)
        except ServerUnreachable as error:
            if error.code != "connection_lost":
                raise
        self._connection.await_return(within=self._connection.timeout)
        return self._send(name, upload, headers, on_progress)

    def _send(self, name: str, upload: Upload, headers: Mapping[str, str], on_progress: Progress | None) -> Version:
        patience = httpx.Timeout(self._connection.timeout, read=max(_AFTER_UPLOAD, self._connection.timeout))
        options: dict[str, Any] = {"headers": headers, "params": _CREATE, "timeout": patience}
        with upload.parts(on_progress) as parts:
            path = f"{_API}/models/{_part(name)}/versions"
            return Version.read(self._connection.document("POST", path, files=parts, **options))

    def _next_state(self, version: Version) -> Version:
        """Return the version after its next change, or as it is now when none is heard of for a while."""
        path = f"{_API}{_version_path(version.model, version.number)}/events"
        try:
            for document in self._connection.events(path, timeout=_LONGEST_SILENCE):
                heard = Version.read(document)
                if heard.state != version.state:
                    return heard
        except (TimedOut, ServerUnreachable):
            self._connection.await_return(within=self._connection.timeout)
        return self.version(version.model, version.number)

    def _serves(self, name: str, number: int) -> bool:
        """Ask the server that predicts; a key that may not predict gets the slower news that the control plane has."""
        try:
            return self._connection.answers(f"/v2/models/{_part(name)}/versions/{number}/ready")
        except NotAllowed:
            return any(server.get("version") == number for server in self.deployment(name).serving)

    def _fetch(self, version: Version, to: Path, on_progress: Progress | None) -> None:
        path = f"{_API}{_version_path(version.model, version.number)}/artifact"
        digest, done = hashlib.sha256(), 0
        with self._connection.stream(path, headers={"accept": "*/*"}) as response, to.open("wb") as file:
            for chunk in response.iter_bytes(256 * 1024):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                if on_progress is not None:
                    on_progress(done, version.size)
        if digest.hexdigest() != version.digest.removeprefix("sha256:"):
            raise ServerUnreachable(
                "The download broke: what came is not what the server holds. Try again.", code="download_broken"
            )


def _filters(wanted: Mapping[str, object]) -> dict[str, str]:
    """Return filters as a query; raises `Invalid` for one that there is not."""
    unknown = wanted.keys() - _FILTERS
    if unknown:
        raise Invalid(f"There is no filter {min(unknown)}: there are {', '.join(sorted(_FILTERS))}.", code="invalid_filter")
    return {
        name: value.isoformat() if isinstance(value, datetime) else str(value)
        for name, value in wanted.items()
        if value is not None
    }


def _part(name: str) -> str:
    """Return a name as one part of a path."""
    if not name or name in {".", ".."}:
        raise Invalid(f"{name!r} is no name.", code="invalid_name")
    return quote(name, safe="")


def _version_path(name: str, number: int) -> str:
    return f"/models/{_part(name)}/versions/{int(number)}"
