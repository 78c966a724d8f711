"""The native dialect: `POST /api/v1/predict/{deployment}`, and the short forms `/predict` and `/info`.

A body is JSON (`{"inputs": ..., "top_k": 5}`), a picture as it is, or a multipart form with one or more `file` parts.
"""

import re

import msgspec

from modelkeep.contracts.errors import FieldError, Invalid, InvalidInput, ModelkeepError
from modelkeep.contracts.signature import Layout
from modelkeep.serving import multipart
from modelkeep.serving.codec import Tensors, tensors_from, tensors_from_json, values_of
from modelkeep.serving.engine import Engine, Prediction, class_names, scores_of, top_classes
from modelkeep.serving.messages import Request, Response
from modelkeep.serving.pool import Served
from modelkeep.serving.router import Router

DEFAULT_TOP_K = 5
MAX_TOP_K = 1000


class UnsupportedMediaType(Invalid):
    """Send JSON; for a picture model also the picture itself or a multipart form with a part named `file`."""

    code = "unsupported_media_type"


class InvalidJson(Invalid):
    """The body is not the JSON object that is needed here: {"inputs": ...}."""

    code = "invalid_json"


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    inputs: msgspec.Raw
    top_k: int | None = None
    version: int | str | None = None
    outputs: list[str] | None = None


class _Answer(msgspec.Struct, omit_defaults=True):
    id: str
    deployment: str
    model: str
    version: int
    predictions: list[object] | None = None
    outputs: dict[str, list[object]] | None = None
    labels: list[str] | None = None


_NAMED_FIELD = re.compile(r"Object (?P<what>missing required|contains unknown) field `(?P<name>.*)`", re.DOTALL)
_decode = msgspec.json.Decoder(_Body).decode
_encode = msgspec.json.Encoder().encode


class _Asked(msgspec.Struct):
    """What a request asks for, whatever form it came in."""

    tensors: Tensors
    top_k: int | None
    outputs: list[str] | None = None


class Native:
    """Decodes native requests, and encodes the engine's answers."""

    def __init__(self, router: Router, engine: Engine, max_body: int) -> None:
        self._router = router
        self._engine = engine
        self._max_body = max_body

    async def predict(self, deployment: str, request: Request, *, flat: bool = False) -> Response:
        """Answer a prediction. `flat`: a single picture's classes are not wrapped in a list, as `/predict` has it."""
        version = request.query("version")
        self._router.find(deployment, version)  # refused before its body is read
        body = await request.body(self._max_body)
        served = self._router.find(deployment, version)  # while it was read, another version may have taken over
        try:
            asked = self._read(deployment, served, request, body)
        except ModelkeepError as error:
            self._engine.refused(deployment, served.version.number, error)
            raise
        prediction = await self._engine.predict(deployment, served, asked.tensors, request)
        return Response(200, _encode(_answer(deployment, prediction, asked, flat=flat)), headers=prediction.headers)

    def info(self, deployment: str) -> dict[str, object]:
        """Describe what answers for a deployment."""
        served = self._router.find(deployment)
        version = served.version
        return {
            "deployment": deployment,
            "model": version.model,
            "version": version.number,
            "version_id": version.id,
            "format": version.spec.format,
            "framework": version.framework,
            "digest": version.spec.digest,
            "ready": served.ready,
            "signature": msgspec.to_builtins(version.signature),
            "preprocessing": msgspec.to_builtins(version.spec.image),
            "classes": list(class_names(served)),
            "created_at": version.created_at,
        }

    def _read(self, deployment: str, served: Served, request: Request, body: bytes) -> _Asked:
        kind = (request.header(b"content-type") or b"application/json").partition(b";")[0].strip().lower()
        if kind == b"application/json" or kind.endswith(b"+json"):
            return self._read_json(deployment, served, body)
        if served.version.signature.layout is Layout.IMAGE:
            top_k = _top_k(request.query("top_k"))
            if kind == b"multipart/form-data":
                return _read_form(served, multipart.parse(request.header(b"content-type") or b"", body), top_k)
            if kind.startswith(b"image/") or kind == b"application/octet-stream":
                return _Asked(tensors_from(served.version.signature, [body]), top_k)
        if kind == b"application/x-www-form-urlencoded":  # what curl -d sends when it is told nothing
            return self._read_json(deployment, served, body)
        raise UnsupportedMediaType

    def _read_json(self, deployment: str, served: Served, body: bytes) -> _Asked:
        try:
            asked = _decode(body)
        except msgspec.ValidationError as error:
            raise _unfit(error) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidJson from error
        if asked.version is not None:
            self._router.find(deployment, str(asked.version))
        top_k = None if asked.top_k is None else _top_k(str(asked.top_k))
        return _Asked(tensors_from_json(served.version.signature, bytes(asked.inputs)), top_k, asked.outputs)


def _unfit(error: msgspec.ValidationError) -> InvalidJson:
    """Return the refusal for a body of the wrong form: which field, and what about it, without what was sent."""
    text, _at, place = str(error).partition(" - at `$")
    field = _NAMED_FIELD.fullmatch(text)
    if field is None:
        path, code = place.strip("`.") or "body", "invalid_field"
    else:
        path, code = field["name"][:63], "missing_field" if field["what"].startswith("missing") else "unknown_field"
        text = f"Object {field['what']} field"
    return InvalidJson(f"{path}: {text}.", fields=(FieldError(path, code, f"{text}."),))


def _read_form(served: Served, parts: list[multipart.Part], top_k: int | None) -> _Asked:
    pictures: list[bytes] = []
    for part in parts:
        if part.name == "top_k":
            top_k = _top_k(part.data.decode("utf-8", "replace"))
        elif part.name in {"file", "files", "image"}:
            pictures.append(bytes(part.data))
        else:
            text = "Send pictures as `file`, and `top_k` if you like."
            raise InvalidInput(text, fields=(FieldError(part.name[:63], "unknown_field", text),))
    if not pictures:
        text = "The form has no part named `file`."
        raise InvalidInput(text, fields=(FieldError("file", "missing_file", text),))
    return _Asked(tensors_from(served.version.signature, pictures), top_k)


def _top_k(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > len(str(MAX_TOP_K)) or not 1 <= int(text) <= MAX_TOP_K:
        message = f"top_k is a whole number from 1 to {MAX_TOP_K}."
        raise InvalidInput(message, fields=(FieldError("top_k", "out_of_range", message),))
    return int(text)


def _answer(deployment: str, prediction: Prediction, asked: _Asked, *, flat: bool) -> _Answer:
    version = prediction.served.version
    answer = _Answer(prediction.id, deployment, version.model, version.number)
    pictures = version.signature.layout is Layout.IMAGE and scores_of(prediction) is not None
    if asked.top_k is not None or (pictures and asked.outputs is None):
        rows = top_classes(prediction, asked.top_k or DEFAULT_TOP_K)
        answer.predictions = list(rows[0] if flat and len(rows) == 1 else rows)
        return answer
    unknown = [name for name in asked.outputs or () if name not in prediction.outputs]
    if unknown:
        text = "The model has no such output."
        raise InvalidInput(text, fields=tuple(FieldError(f"outputs.{name[:63]}", "unknown_output", text) for name in unknown))
    wanted = asked.outputs or prediction.outputs
    answer.outputs = {name: values_of(prediction.outputs[name]) for name in wanted}
    answer.labels = _labels(prediction)
    return answer


def _labels(prediction: Prediction) -> list[str] | None:
    """Name each row's class where the uploader gave labels: by the label output, in the order of the model's classes."""
    version = prediction.served.version
    label = prediction.outputs.get("label")
    classes = next((spec.classes for spec in version.signature.outputs if spec.name == version.scores), ())
    if not version.labels or label is None or label.ndim != 1 or len(classes) != len(version.labels):
        return None
    names = dict(zip(classes, version.labels, strict=True))
    return [names.get(str(value), str(value)) for value in values_of(label)]
