"""Asking a deployment for predictions: on rows or pictures, and on many rows in pieces."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import islice
from typing import Any

from modelkeep.client.errors import Invalid
from modelkeep.client.inputs import are_pictures, encode, pictures_in, rows_in, sliced
from modelkeep.client.results import Listing, Prediction
from modelkeep.client.server import Server, part
from modelkeep.client.steps import Steps, Together, Work

_OCTETS = "application/octet-stream"


def predict(
    server: Server,
    name: str,
    inputs: object,
    *,
    top_k: int | None = None,
    version: int | str | None = None,
    outputs: Sequence[str] = (),
    include: Sequence[str] = (),
) -> Steps[Prediction]:
    """Ask the deployment `name` for predictions.

    `inputs` are rows (lists, a numpy array, a DataFrame of pandas or polars, an Arrow table, a dict of columns or of named
    tensors, a record, a list of records), or pictures (a path, bytes, a PIL image, or a list of these). `top_k`: how many
    labels to name for each. `version`: the alias or number of the version that is to answer, where it is not the promoted one.
    `outputs`: those to answer with, where not all are wanted. `include`: what the answer is to say of itself, "timings" or
    "version", in `metadata`.
    """
    path = f"/predict/{part(name)}"
    headers = {} if version is None else {"x-modelkeep-version": str(version)}
    named = {"outputs": _names(outputs), "include": _names(include)}
    if are_pictures(inputs):
        pictures = yield Work(partial(pictures_in, inputs))
        form = partial(nullcontext, [("file", (one.name, one.data, _OCTETS)) for one in pictures])
        query: dict[str, object] = {} if top_k is None else {"top_k": top_k}
        query |= {what: ",".join(names) for what, names in named.items() if names}
        sent = server.document("POST", path, parts=form, params=query, headers=headers, repeat=True)
        return Prediction.read((yield from sent))
    body: dict[str, Any] = {"inputs": rows_in(inputs)}
    if top_k is not None:
        body["top_k"] = top_k
    body |= {what: names for what, names in named.items() if names}
    headers["content-type"] = "application/json"
    return Prediction.read((yield from server.document("POST", path, content=encode(body), headers=headers, repeat=True)))


def predict_many(
    server: Server,
    name: str,
    rows: object,
    *,
    chunk: int = 1000,
    at_once: int = 4,
    top_k: int | None = None,
    version: int | str | None = None,
    outputs: Sequence[str] = (),
) -> Steps[list[Prediction]]:
    """Ask for predictions on many rows, `chunk` of them a request and `at_once` requests at a time; answers are in order.

    `rows` are what `predict` takes, or any iterable of rows (or of pictures), which is read as it is needed. The first
    request that fails ends it, after its repeats, with its error.
    """
    if chunk < 1 or at_once < 1:
        raise Invalid("`chunk` and `at_once` are whole numbers of at least 1.", code="invalid_input")
    each = (predict(server, name, piece, top_k=top_k, version=version, outputs=outputs) for piece in _pieces(rows, chunk))
    return Listing((yield Together(each, at_once)))


def _names(given: Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _pieces(rows: object, chunk: int) -> Iterator[object]:
    cut = sliced(rows)
    if cut is not None:
        count, take = cut
        yield from (take(start, min(start + chunk, count)) for start in range(0, count, chunk))
        return
    if not isinstance(rows, Iterable):
        raise Invalid(f"{type(rows).__name__} holds no rows.", code="invalid_input")
    left = iter(rows)
    while piece := list(islice(left, chunk)):
        yield piece
