"""Bodies that MLflow's scoring protocol and SageMaker's endpoints take, and the answer that both give.

    application/json     exactly one of dataframe_split, dataframe_records, instances, inputs; beside it perhaps params
    text/csv             rows, in UTF-8; `serving/csv_rows.py` says when the first line is a header
    application/x-npy    one array, as numpy.save writes it
    image/...            one picture, for a model of pictures; application/x-image and application/octet-stream are the same

`params` may hold `top_k` (the best classes of each row) and `outputs` (some outputs only). What is not known is refused, not
dropped. NaN, which Python's json writes for a gap, is a missing value. The answer is `{"predictions": [...]}`, a row each: the
values of one output, or objects of several.

Source: mlflow, `mlflow/pyfunc/scoring_server`; the Amazon SageMaker developer guide, "common data formats for inference".
"""

import re
from collections.abc import Collection
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from modelkeep.contracts.errors import FieldError, InvalidInput
from modelkeep.contracts.signature import Layout, Signature, TensorSpec
from modelkeep.contracts.snapshot import ServedVersion
from modelkeep.serving.calls import Call, Share
from modelkeep.serving.codec import Tensors, tensors_from
from modelkeep.serving.csv_rows import tensors_from_csv
from modelkeep.serving.dialects.frames import RECORDS, SPLIT, records_of, split_of
from modelkeep.serving.dialects.native import MAX_TOP_K, InvalidJson, UnsupportedMediaType
from modelkeep.serving.dialects.rows import by_row, inputs_of, instances_of
from modelkeep.serving.engine import no_scores, top_classes
from modelkeep.serving.matrix import Matrix, plain_rows
from modelkeep.serving.npy import tensors_from_npy

FORMS: Final = (SPLIT, RECORDS, "instances", "inputs")
CLIENT_REQUEST_ID: Final = "client_request_id"
_JSON: Final = "application/json"
_PARAMS: Final = "params"
_PICTURES: Final = frozenset({"application/x-image", "application/octet-stream"})
_HEADER: Final = {None: None, "present": True, "absent": False}

_TEXTS_AND_NOT_FINITE: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)|(?<![\w-])NaN\b|\bInfinity\b', re.DOTALL)

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a request wants of its answer: `params`."""

    top_k: Annotated[int, msgspec.Meta(ge=1, le=MAX_TOP_K)] | None = None
    outputs: tuple[str, ...] = ()


class Asked(NamedTuple):
    """What a body asks. `id` is the caller's own name of the request, where its dialect has one in the body."""

    payload: Matrix | Tensors
    wish: Wish = Wish()
    id: str = ""


class Reading(NamedTuple):
    """How a dialect reads bodies. `headless`: CSV has no header where it could be either. `also`: further fields of JSON."""

    headless: bool = False
    also: Collection[str] = ()


def asked_of(signature: Signature, content_type: str, body: bytes, how: Reading, matrix: TensorSpec | None = None) -> Asked:
    """Read a body; raises `UnsupportedMediaType`, `InvalidJson`, `InvalidInput` or what else is wrong with it.

    With `matrix`, the one input of floats of a version that is asked now, plain rows go the short way.
    """
    kind, parameters = _media(content_type)
    if kind == _JSON:
        return _from_json(signature, body, how, matrix)
    if kind == "text/csv":
        header = parameters.get("header")
        if header not in _HEADER:
            raise UnsupportedMediaType("`header` of text/csv is `present` or `absent`.")
        try:
            return Asked(tensors_from_csv(signature, body, header=_HEADER[header], headless=how.headless))
        except InvalidInput as error:
            raise error.renamed("inputs", "csv") from error
    if kind == "application/x-npy":
        return Asked(tensors_from_npy(signature, body))
    if signature.layout is Layout.IMAGE and (kind.startswith("image/") or kind in _PICTURES):
        return Asked(tensors_from(signature, [body]))
    raise _unsupported()


def tensors_of(signature: Signature, content_type: str, body: bytes, how: Reading) -> Tensors:
    """Return the inputs of a request that came before, read as a new one would be; raises what reading it raises."""
    payload = asked_of(signature, content_type, body, how).payload
    assert not isinstance(payload, Matrix)  # noqa: S101 - that way is for versions that are asked now
    return payload


def wish_of(content_type: str, body: bytes) -> Wish:
    """Return what a request that came before wanted of its answer; raises what reading it raises."""
    if _media(content_type)[0] != _JSON:
        return Wish()
    fields = _fields(body)
    return _wish(fields[_PARAMS]) if _PARAMS in fields else Wish()


def check(version: ServedVersion, wish: Wish) -> None:
    """Raise `InvalidInput` for a wish that the version cannot answer, before it is run."""
    known = {spec.name for spec in version.signature.outputs}
    unknown = [name for name in wish.outputs if name not in known]
    if unknown:
        text = "The model has no such output."
        paths = [f"params.outputs.{name[:63]}" for name in unknown]
        raise InvalidInput(f"{paths[0]}: {text}", fields=tuple(FieldError(path, "unknown_output", text) for path in paths))
    if wish.top_k is not None and not version.scores:
        raise no_scores()


def predictions(call: Call, share: Share, wish: Wish) -> list[Any] | msgspec.Raw:
    """Return the answer's `predictions`; raises `AnswerNotFinite` where the deployment refuses NaN and infinity."""
    if wish.top_k is not None:
        return share.json(list(top_classes(call, share, wish.top_k)))
    not_finite = call.route.settings.not_finite
    return share.json(by_row({name: share.values(name, not_finite) for name in wish.outputs or share.names}))


def answered(signature: Signature, body: bytes, wish: Wish) -> tuple[dict[str, list[Any]], list[list[dict[str, Any]]]]:
    """Return what `predictions` wrote, as lists by output or as best classes; raises `KeyError`, `TypeError`, `ValueError`."""
    rows: list[Any] = msgspec.json.decode(body, type=dict[str, list[Any]])["predictions"]
    if wish.top_k is not None:
        return {}, [[dict(one) for one in row] for row in rows]
    names = wish.outputs or tuple(spec.name for spec in signature.outputs)
    if len(names) == 1:
        return {names[0]: rows}, []
    return {name: [row[name] for row in rows] for name in names}, []


def _media(content_type: str) -> tuple[str, dict[str, str]]:
    """Return a content type and its parameters; raises `UnsupportedMediaType` for those that mean nothing here."""
    kind, *rest = (part.strip().lower() for part in content_type.split(";"))
    parameters = {}
    for part in filter(None, rest):
        name, _, value = part.partition("=")
        parameters[name.strip()] = value.strip().strip('"')
    if parameters.pop("charset", "utf-8") not in {"utf-8", "utf8"} or not parameters.keys() <= {"header"}:
        raise _unsupported()
    if parameters and kind != "text/csv":
        raise _unsupported()
    return kind, parameters


def _unsupported() -> UnsupportedMediaType:
    text = "Send application/json or text/csv (in UTF-8), application/x-npy, or for a picture model the picture itself."
    return UnsupportedMediaType(text)


# ---- JSON


def _from_json(signature: Signature, body: bytes, how: Reading, matrix: TensorSpec | None) -> Asked:
    fields = _fields(body)
    for name in fields:
        if name not in FORMS and name != _PARAMS and name not in how.also:
            raise _no_body(name, "unknown_field")
    given = [name for name in FORMS if name in fields]
    if len(given) != 1:
        raise _no_body(given[1] if given else "body", "one_form")
    wish = _wish(fields[_PARAMS]) if _PARAMS in fields else Wish()
    client_id = _text(fields[CLIENT_REQUEST_ID]) if CLIENT_REQUEST_ID in fields else ""
    return Asked(_payload(signature, given[0], fields[given[0]], matrix), wish, client_id)


def _payload(signature: Signature, form: str, raw: msgspec.Raw, matrix: TensorSpec | None) -> Matrix | Tensors:
    if form == RECORDS:
        return records_of(signature, raw)
    if form == SPLIT:
        return split_of(signature, raw, matrix)
    rows = plain_rows(matrix, raw) if matrix is not None else None
    if rows is not None:
        return Matrix(signature, rows)
    return instances_of(signature, raw) if form == "instances" else inputs_of(signature, raw)


def _fields(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _decode(body)
    except msgspec.ValidationError as error:
        raise _no_body("body", "not_an_object") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if b"NaN" not in body:
            raise InvalidJson("The body is not valid JSON.") from error
    try:
        return _decode(_TEXTS_AND_NOT_FINITE.sub(_null_for_nan, body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJson("The body is not valid JSON.") from error


def _null_for_nan(found: re.Match[bytes]) -> bytes:
    token = found[0]
    if token.endswith(b"Infinity"):
        raise InvalidJson("Infinity is no JSON, and no value of a model.")
    return b"null" if token == b"NaN" else token


def _no_body(path: str, code: str) -> InvalidJson:
    text = f"The body is a JSON object with exactly one of {', '.join(FORMS)}, and `params` if you like."
    return InvalidJson(text, fields=(FieldError(path[:63], code, text),))


def _wish(raw: msgspec.Raw) -> Wish:
    try:
        return msgspec.json.decode(raw, type=Wish | None) or Wish()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = f"It may hold `top_k`, a whole number from 1 to {MAX_TOP_K}, and `outputs`, a list of names; nothing else."
        raise InvalidInput.at(_PARAMS, "invalid_params", text) from error


def _text(raw: msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(raw, type=str | None) or ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput.at(CLIENT_REQUEST_ID, "not_a_text", "A text is needed here.") from error
