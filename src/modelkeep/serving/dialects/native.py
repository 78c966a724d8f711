"""The native dialect: `POST /api/v1/predict/{deployment}`, and the short forms `/predict` and `/info`.

A body is JSON (`{"inputs": ..., "top_k": 5}`), a picture as it is, or a multipart form with one or more `file` parts. What an
answer says beside its outputs is the caller's choice: `outputs` names some of them, `include` asks for more about the answer.
"""

import re
import time
from typing import Final, Literal, get_args

import msgspec

from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import FieldError, Invalid, InvalidInput, ModelkeepError, NotFound
from modelkeep.contracts.signature import Layout, Signature
from modelkeep.contracts.snapshot import ServedVersion
from modelkeep.serving import multipart
from modelkeep.serving.calls import Call, Share
from modelkeep.serving.choice import Choice, version_asked
from modelkeep.serving.codec import Tensors, tensors_from, tensors_from_json
from modelkeep.serving.dialects.dialect import as_problem, only, reads
from modelkeep.serving.engine import Engine, Tell, answer_headers, class_names, no_scores, scores_of, top_classes
from modelkeep.serving.matrix import Matrix, plain_rows
from modelkeep.serving.messages import Request, Response
from modelkeep.serving.router import Route
from modelkeep.serving.view import View

NAME: Final = "native"
DEFAULT_TOP_K = 5
MAX_TOP_K = 1000
_JSON = b"application/json"


class UnsupportedMediaType(Invalid):
    """Send JSON; for a picture model also the picture itself or a multipart form with a part named `file`."""

    code = "unsupported_media_type"


class InvalidJson(Invalid):
    """The body is not the JSON object that is needed here: {"inputs": ...}."""

    code = "invalid_json"


Include = Literal["timings", "version"]
"""What an answer can say of itself: how long its parts took, and which file of which version answered."""


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    inputs: msgspec.Raw
    top_k: int | None = None
    version: int | str | None = None
    outputs: list[str] | None = None
    include: list[Include] | None = None


class _Answer(msgspec.Struct, omit_defaults=True):
    id: str
    deployment: str
    model: str
    version: int
    predictions: list[object] | msgspec.Raw | None = None
    outputs: dict[str, list[object] | msgspec.Raw] | None = None
    labels: list[str] | None = None
    metadata: dict[str, dict[str, object]] | None = None


_NAMED_FIELD = re.compile(r"Object (?P<what>missing required|contains unknown) field `(?P<name>.*)`", re.DOTALL)
_decode = msgspec.json.Decoder(_Body).decode
_encode = msgspec.json.Encoder().encode


class _Wish:
    """What a request wants of its answer, and the function that writes it."""

    __slots__ = ("flat", "include", "outputs", "top_k")

    def __init__(
        self,
        *,
        flat: bool,
        top_k: int | None = None,
        outputs: list[str] | None = None,
        include: list[Include] | None = None,
    ) -> None:
        self.flat = flat
        self.top_k = top_k
        self.outputs = outputs
        self.include = include

    def write(self, call: Call, share: Share) -> Response:
        """Write the answer to one call."""
        return Response(200, _encode(_answer(call, share, self)), headers=answer_headers(call))


class Native:
    """Decodes native requests, and encodes the engine's answers. `product` is the installation's own version."""

    route: Final = "predict"

    def __init__(self, engine: Engine, choice: Choice, product: str) -> None:
        self._engine = engine
        self._choice = choice
        self._product = product

    def needs(self, request: Request, parts: list[str]) -> Scope:
        """Return the scope that a path asks of a key."""
        if parts[0] == "info":
            reads(request)
        else:
            only("POST", request)
        return Scope.PREDICT

    async def answer(self, request: Request, parts: list[str]) -> Response:
        """Answer `/api/v1/predict/{deployment}`, `/predict` or `/info`."""
        match parts:
            case ["info"]:
                return self._info(request)
            case ["predict"]:
                return await self._predict(self._choice.of(request), request, flat=True)
            case ["api", "v1", "predict", name]:
                return await self._predict(name, request, flat=False)
            case _:
                raise NotFound

    def refusal(self, request: Request, error: ModelkeepError) -> Response:
        """Return an error as a problem document."""
        return as_problem(request, error)

    async def _predict(self, deployment: str, request: Request, *, flat: bool) -> Response:
        """Answer a prediction. `flat`: a single picture's classes are not wrapped in a list, as `/predict` has it."""
        version = request.query("version") if request.query_string else None
        return await self._engine.predict(deployment, version, request, NAME, lambda call: self._read(call, request, flat=flat))

    def predict_whole(self, deployment: str, request: Request, body: bytes, tell: Tell) -> None:
        """Answer a prediction whose body is there: `tell` gets the answer, or why there is none."""
        self._engine.predict_whole(
            deployment, request, NAME, body, read=lambda call: self._read(call, request, flat=False), tell=tell
        )

    def read(self, call: Call, request: Request) -> None:
        """Read a call of the short form, which came by a path that another dialect shares."""
        self._read(call, request, flat=True)

    def _info(self, request: Request) -> Response:
        """Describe the deployment that is named, or all of them."""
        product = {"product": "modelkeep", "product_version": self._product}
        view, name = self._engine.view(request), self._choice.named(request)
        if name:
            asked = version_asked(request, request.query("version"))
            return Response(200, _encode(_described(view, name, asked) | product))
        return Response(200, _encode(product | {"models": [_described(view, one) for one in sorted(view.routes())]}))

    def _read(self, call: Call, request: Request, *, flat: bool) -> None:
        content_type = call.content_type
        if content_type == _JSON:
            return self._read_json(call, request, flat=flat)
        kind = content_type.partition(b";")[0].strip().lower()
        if kind == _JSON or kind.endswith(b"+json"):
            return self._read_json(call, request, flat=flat)
        signature = call.route.served.version.signature
        if signature.layout is Layout.IMAGE:
            pictures = self._pictures(call, request, kind, wish := _Wish(flat=flat))
            if pictures is not None:
                return call.ask(pictures, wish.write)
        if kind == b"application/x-www-form-urlencoded":  # what curl -d sends when it is told nothing
            return self._read_json(call, request, flat=flat)
        raise UnsupportedMediaType

    def _pictures(self, call: Call, request: Request, kind: bytes, wish: _Wish) -> Tensors | None:
        """Read pictures that come as they are, and what is wished for beside them; None for another kind of body."""
        form = kind == b"multipart/form-data"
        if not (form or kind.startswith(b"image/") or kind == b"application/octet-stream"):
            return None
        version = call.route.served.version
        wish.top_k, wish.include = _top_k(request.query("top_k")), _include(request.query("include"))
        wish.outputs = _listed(request.query("outputs"))
        if form:
            pictures = _read_form(version.signature, multipart.parse(call.content_type, call.body), wish)
        else:
            pictures = tensors_from(version.signature, [call.body])
        _check_wish(version, wish)
        return pictures

    def _read_json(self, call: Call, request: Request, *, flat: bool) -> None:
        try:
            asked = _decode(call.body)
        except msgspec.ValidationError as error:
            raise _unfit(error) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidJson from error
        if asked.version is not None:
            call.route = self._asked(call.route, str(asked.version), request)
        version = call.route.served.version
        top_k = None if asked.top_k is None else _top_k(str(asked.top_k))
        wish = _Wish(flat=flat, top_k=top_k, outputs=asked.outputs, include=asked.include)
        if asked.outputs is not None or top_k is not None:
            _check_wish(version, wish)
        matrix = call.route.served.matrix
        rows = plain_rows(matrix, asked.inputs) if matrix is not None else None
        if rows is None:
            call.ask(tensors_from_json(version.signature, asked.inputs), wish.write)
        else:
            call.ask(Matrix(version.signature, rows), wish.write)

    def _asked(self, route: Route, version: str, request: Request) -> Route:
        """Return what answers by the version that a body names; raises `InvalidInput` where the query names another one."""
        asked = self._engine.view(request).find(route.name, version)
        if asked is not route and request.query("version") is not None:
            text = "The query names one version and the body another."
            raise InvalidInput(text, fields=(FieldError("version", "two_versions", text),))
        return asked


def tensors_of(signature: Signature, content_type: str, body: bytes) -> Tensors:
    """Return the inputs of a request that came before, read as a new one would be; raises what reading it raises."""
    kind = content_type.partition(";")[0].strip().lower()
    if signature.layout is Layout.IMAGE:
        if kind == "multipart/form-data":
            return _read_form(signature, multipart.parse(content_type.encode("latin-1"), body), _Wish(flat=False))
        if kind.startswith("image/") or kind == "application/octet-stream":
            return tensors_from(signature, [body])
    try:
        asked = _decode(body)
    except msgspec.ValidationError as error:
        raise _unfit(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJson from error
    return tensors_from_json(signature, asked.inputs)


def _check_wish(version: ServedVersion, wish: _Wish) -> None:
    """Refuse what the version cannot answer before it is run."""
    known = {spec.name for spec in version.signature.outputs}
    unknown = [name for name in wish.outputs or () if name not in known]
    if unknown:
        text = f"The model has no such output; it has {', '.join(sorted(known))}."
        raise InvalidInput(text, fields=tuple(FieldError(f"outputs.{name[:63]}", "unknown_output", text) for name in unknown))
    if wish.top_k is not None and not version.scores:
        raise no_scores()


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


def _read_form(signature: Signature, parts: list[multipart.Part], wish: _Wish) -> Tensors:
    pictures: list[bytes] = []
    for part in parts:
        if part.name == "top_k":
            wish.top_k = _top_k(part.data.decode("utf-8", "replace"))
        elif part.name == "include":
            wish.include = _include(part.data.decode("utf-8", "replace"))
        elif part.name == "outputs":
            wish.outputs = _listed(part.data.decode("utf-8", "replace"))
        elif part.name in {"file", "files", "image"}:
            pictures.append(bytes(part.data))
        else:
            text = "Send pictures as `file`, and `top_k`, `outputs` or `include` if you like."
            raise InvalidInput(text, fields=(FieldError(part.name[:63], "unknown_field", text),))
    if not pictures:
        text = "The form has no part named `file`."
        raise InvalidInput(text, fields=(FieldError("file", "missing_file", text),))
    return tensors_from(signature, pictures)


def _top_k(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > len(str(MAX_TOP_K)) or not 1 <= int(text) <= MAX_TOP_K:
        message = f"top_k is a whole number from 1 to {MAX_TOP_K}."
        raise InvalidInput(message, fields=(FieldError("top_k", "out_of_range", message),))
    return int(text)


def _listed(text: str | None) -> list[str] | None:
    """Read `?outputs=label,scores`."""
    return None if text is None else text.split(",")


def _include(text: str | None) -> list[Include] | None:
    """Read `?include=timings,version`."""
    try:
        return msgspec.convert(_listed(text), list[Include] | None)
    except msgspec.ValidationError as error:
        message = f"include takes {' and '.join(get_args(Include))}, with a comma between."
        raise InvalidInput(message, fields=(FieldError("include", "unknown_field", message),)) from error


def _metadata(call: Call, share: Share, include: list[Include]) -> dict[str, dict[str, object]]:
    """Return what is asked for of the answer itself; times are milliseconds."""
    metadata: dict[str, dict[str, object]] = {}
    if "timings" in include:
        run = share.run
        total_s = time.monotonic() - call.started
        waited_s = max(0.0, total_s - run.run_s - run.preprocess_s)
        seconds = {"queue": waited_s, "preprocess": run.preprocess_s, "run": run.run_s, "total": total_s}
        metadata["timings"] = {f"{name}_ms": round(value * 1000, 3) for name, value in seconds.items()}
    if "version" in include:
        version = call.route.served.version
        metadata["version"] = {
            "id": version.id,
            "format": version.spec.format,
            "framework": version.framework,
            "digest": version.spec.digest,
            "created_at": version.created_at,
        }
    return metadata


def _answer(call: Call, share: Share, wish: _Wish) -> _Answer:
    version = call.route.served.version
    answer = _Answer(call.id, call.route.name, version.model, version.number)
    if wish.include:
        answer.metadata = _metadata(call, share, wish.include)
    if wish.top_k is not None or (
        wish.outputs is None and version.signature.layout is Layout.IMAGE and scores_of(call, share) is not None
    ):
        rows = top_classes(call, share, wish.top_k or DEFAULT_TOP_K)
        answer.predictions = share.json(list(rows[0] if wish.flat and len(rows) == 1 else rows))
        if not wish.outputs:
            return answer
    not_finite = call.route.settings.not_finite
    answer.outputs = {name: share.json(share.values(name, not_finite)) for name in wish.outputs or share.names}
    if version.labels:
        answer.labels = _labels(call, share)
    return answer


def _labels(call: Call, share: Share) -> list[str] | None:
    """Name each row's class where the uploader gave labels: by the label output, in the order of the model's classes."""
    version = call.route.served.version
    if "label" not in share.run.outputs:
        return None
    label = share.tensor("label")
    classes = next((spec.classes for spec in version.signature.outputs if spec.name == version.scores), ())
    if label.ndim != 1 or len(classes) != len(version.labels):
        return None
    names = dict(zip(classes, version.labels, strict=True))
    return [names.get(str(value), str(value)) for value in share.values("label")]


def _described(view: View, deployment: str, asked: str | None = None) -> dict[str, object]:
    served = view.find(deployment, asked).served
    version = served.version
    return {
        "deployment": deployment,
        "model": version.model,
        "version": version.number,
        "version_id": version.id,
        "aliases": view.aliases(deployment),
        "format": version.spec.format,
        "framework": version.framework,
        "digest": version.spec.digest,
        "ready": served.answers,
        "asleep": served.asleep,
        "signature": msgspec.to_builtins(version.signature),
        "preprocessing": msgspec.to_builtins(version.spec.image),
        "classes": list(class_names(served)),
        "created_at": version.created_at,
    }
