"""What both HTTP doors describe themselves with, in OpenAPI 3.1: refusals, headers, keys, schemas of msgspec structs.

A description is a part of an OpenAPI document: plain dicts, made of the code that answers, so that it cannot say otherwise.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import groupby
from typing import Any, Final

import msgspec

from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import (
    CertificateExpired,
    CertificateUnclear,
    Forbidden,
    IdempotencyKeyInUse,
    Internal,
    Kind,
    Limited,
    ModelkeepError,
    Unauthenticated,
    WrongCertificate,
    WrongNetwork,
)
from modelkeep.infra import cookies
from modelkeep.infra.problems import CONTENT_TYPE, STATUS, TITLE, Problem

Document = dict[str, Any]
"""A JSON object of the OpenAPI document, or of a part of it."""

Refusals = tuple[type[ModelkeepError], ...]
NOT_ADMITTED: Final[Refusals] = (Unauthenticated, CertificateExpired, CertificateUnclear, WrongCertificate, WrongNetwork)
"""What whoever asks for a key may refuse a key, or its absence, for."""

Shape = Callable[[int, Sequence[type[ModelkeepError]]], Document]
"""Returns the `content` of the refusals of one status, as a dialect writes them."""

SCHEMAS: Final = "#/components/schemas/"
_OF_OBJECTS: Final = frozenset({"properties", "additionalProperties", "patternProperties"})
_RETRY: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_EXAMPLE_ID: Final = "req_01J9Z3K6T2Q8W4V5R7X0Y1B2C3"

_KEYS: Final[Document] = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key: `mk_...`."},
    "Bearer": {"type": "http", "scheme": "bearer", "description": "The same API key, or the access token of a login."},
}
"""The two ways to send a key, which open the same."""
_PAGES: Final[Document] = {
    "Browser": {
        "type": "apiKey",
        "in": "cookie",
        "name": cookies.ACCESS,
        "description": "The session of a page of this host: `POST /api/v1/auth/browser/login`.",
    },
    "Csrf": {
        "type": "apiKey",
        "in": "header",
        "name": "X-CSRF-Token",
        "description": "Beside the cookie, for whatever changes something: `csrf_token` of `GET /api/v1/auth/browser`.",
    },
}
"""What a browser sends by itself, and what it does not."""
_SAFE: Final = frozenset({"get", "head"})

HEADERS: Final[Document] = {
    "X-Request-ID": {
        "description": "The request's id: the caller's own, the trace id of `traceparent`, or a new one. The log names it.",
        "required": True,
        "schema": {"type": "string", "maxLength": 128},
        "example": _EXAMPLE_ID,
    },
    "RateLimit": {
        "description": "For each rate that holds for the caller: how many requests more would be let through at this moment "
        "(`r`), and in how many seconds the whole burst is there again, or, where `r` is 0, one request is (`t`).",
        "schema": {"type": "string"},
        "example": '"key";r=15;t=1',
    },
    "RateLimit-Policy": {
        "description": "The rates that hold for the caller: so many requests (`q`) in so many seconds (`w`), by whose rate it "
        "is: `key`, `user`, `deployment`, `address`, `failures` or `api`.",
        "schema": {"type": "string"},
        "example": '"key";q=100;w=60',
    },
    "Retry-After": {
        "description": "In how many seconds it may work; there where that is known.",
        "schema": {"type": "integer", "minimum": 1},
        "example": 1,
    },
    "WWW-Authenticate": {
        "description": "How to say who you are.",
        "required": True,
        "schema": {"type": "string"},
        "example": 'Bearer realm="modelkeep"',
    },
    "Idempotency-Replayed": {
        "description": "`true` where this is what the same request was answered with before; nothing was done now.",
        "schema": {"const": "true"},
        "example": "true",
    },
    "X-Prediction-ID": {
        "description": "The prediction's id in the history.",
        "required": True,
        "schema": {"type": "string"},
        "example": "prd_01J9Z3K6T2Q8W4V5R7X0Y1B2C3",
    },
    "X-Model-Version": {
        "description": "The number of the version that answered.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
        "example": 3,
    },
    "Deprecation": {
        "description": "Since when the version that answered should not be used any more (RFC 9745); only where it is so.",
        "schema": {"type": "string", "pattern": "^@-?[0-9]+$"},
        "example": "@1773480413",
    },
    "Sunset": {
        "description": "When it will answer no longer (RFC 8594), where that was said.",
        "schema": {"type": "string"},
        "example": "Tue, 30 Jun 2026 00:00:00 GMT",
    },
    "Link": {
        "description": "The version that takes its place (`successor-version`), where that was said.",
        "schema": {"type": "string"},
        "example": '</api/v1/models/churn/versions/4>; rel="successor-version"',
    },
}

PARAMETERS: Final[Document] = {
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Makes the request one that may be repeated: sent again with the same key within 24 hours, it is not "
        "done again, but answered as it was the first time. A fresh UUID for each request is best; it counts for the API key "
        "that it comes with.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
        "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
    },
    "RequestId": {
        "name": "X-Request-ID",
        "in": "header",
        "description": "Your own id of the request: up to 128 letters, digits and any of `._:/+=@-`. Another is not taken.",
        "schema": {"type": "string"},
        "example": "order-4711",
    },
}


@dataclass(frozen=True)
class Description:
    """What a part of a door answers: items of `paths`, the schemas that they name, and the tag that its operations have.

    `forwarding` are refusals of its own to what it passes on to another process.
    """

    tag: str
    about: str
    paths: Document
    schemas: Document = field(default_factory=dict)
    forwarding: Refusals = ()


def operation(
    name: str,
    summary: str,
    *,
    tag: str,
    scope: Scope | None,
    answers: Document,
    errors: Iterable[type[ModelkeepError]] = (),
    shape: Shape | None = None,
    about: str = "",
    parameters: Iterable[Document] = (),
    body: Document | None = None,
) -> Document:
    """Return an operation. `name` is what generated clients call it; `answers` are responses by status beside its refusals.

    Whoever asks for a key refuses those without one or without the scope; every operation may fail by our fault.
    """
    keyed: Refusals = () if scope is None else (*NOT_ADMITTED, Forbidden, Limited)
    made: Document = {"tags": [tag], "summary": summary, "description": about or f"{summary}.", "operationId": name}
    made["security"] = security(scope)
    made["parameters"] = [*parameters, parameter("RequestId")]
    if body is not None:
        made["requestBody"] = {"required": True, "content": body}
    made["responses"] = answers | refusals((*keyed, *errors, Internal), shape or as_problems)
    return made


def answer(about: str, content: Document, *headers: str) -> Document:
    """Return a response with these headers (names of components) beside the request's id."""
    return {"description": about, "headers": {one: header(one) for one in ("X-Request-ID", *headers)}, "content": content}


def as_json(name: str, **examples: Document | list[Document]) -> Document:
    """Return the content of a body of JSON: its schema's name, and examples by name."""
    content: Document = {"schema": schema(name)}
    if examples:
        content["examples"] = {one: {"value": value} for one, value in examples.items()}
    return {"application/json": content}


def schema(name: str) -> Document:
    """Return a reference to the schema of this name."""
    return {"$ref": SCHEMAS + name}


def header(name: str) -> Document:
    """Return a reference to the header of this name."""
    return {"$ref": f"#/components/headers/{name}"}


def parameter(name: str) -> Document:
    """Return a reference to the parameter of this name."""
    return {"$ref": f"#/components/parameters/{name}"}


def security(scope: Scope | None) -> list[Document]:
    """Return what a route asks of its caller: a key with this scope by either way; of everyone (None) nothing."""
    return [] if scope is None else [{way: [scope.value]} for way in _KEYS]


def of_pages(security: list[Document], method: str) -> Document:
    """Return how a page asks what is asked for with a key in these ways: with its cookie, and a token for what changes."""
    scopes = security[0]["ApiKey"]
    return {"Browser": scopes} if method in _SAFE else {"Browser": scopes, "Csrf": []}


def schemas(structs: Mapping[str, Any]) -> Document:
    """Return the schemas of msgspec structs and what they hold, each under the name given, others under their class's."""
    _types, components = msgspec.json.schema_components(
        structs.values(), schema_hook=_anything, ref_template=SCHEMAS + "{name}"
    )
    names = {struct.__name__: name for name, struct in structs.items()}
    found = {names.get(name, name): _plain(one, names) for name, one in components.items()}
    for name, struct in structs.items():
        if struct.__struct_config__.omit_defaults:
            found[name]["properties"] = {key: _omitted(one) for key, one in found[name]["properties"].items()}
    return found


def _omitted(value: Document) -> Document:
    """Return the schema of a field that is left out where it has its default: null, where that is it, is never written."""
    given = {key: one for key, one in value.items() if key != "default"}
    if {"type": "null"} in given.get("anyOf", ()):
        given["anyOf"] = [one for one in given["anyOf"] if one != {"type": "null"}]
        if len(given["anyOf"]) == 1:
            given |= given.pop("anyOf")[0]
    return given


def _anything(kind: type) -> Document:
    if kind is object:
        return {"title": "anything"}  # msgspec takes no empty schema; titles go
    raise NotImplementedError(kind)


def _plain(value: Any, names: Mapping[str, str]) -> Any:  # noqa: ANN401 - any part of a schema
    """Return a schema without the classes' own names: references by the names given, and no titles."""
    if isinstance(value, list):
        return [_plain(one, names) for one in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("$ref"), str):
        name = value["$ref"].removeprefix(SCHEMAS)
        return value | schema(names.get(name, name))
    kept = {key: _plain(one, names) for key, one in value.items() if not (key == "title" and isinstance(one, str))}
    if value.get("type") == "object" and value.keys().isdisjoint(_OF_OBJECTS):
        kept["additionalProperties"] = True  # generated types would know of none
    if "default" in value and value["default"] is None and "$ref" not in value:
        del kept["default"]  # what is not there is null, and generated types would ask for it
    return kept


def problem_schemas() -> Document:
    """Return the schemas of errors: the problem document, `Problem`, with what it holds, and `InferenceError` below `/v2`."""
    found = schemas({"Problem": Problem})
    fields = found["Problem"]["properties"]
    fields["type"] |= {"description": "A name of the kind of problem: `urn:modelkeep:error:` and the code."}
    fields["status"] |= {"description": "The status of the answer."}
    fields["code"] |= {"description": "What went wrong, for programs: it stays the same."}
    fields["detail"] |= {"description": "What went wrong, for people; never with a value that was sent."}
    fields["errors"] |= {"description": "The fields at fault, where fields are."}
    fields["approval"] |= {"description": "The id of what another person has to approve first, where one has to."}
    fields["revision"] |= {"description": "The revision that it is at now, where it was changed meanwhile."}
    fields["request_id"] |= {"description": "The request's id, which the log names."}
    found["Problem"]["description"] = "An error (RFC 9457)."
    found["InferenceError"] = {
        "type": "object",
        "description": "An error, as the Open Inference Protocol has it.",
        "properties": {"error": {"type": "string"}},
        "required": ["error"],
        "additionalProperties": False,
    }
    return found


def as_problems(status: int, errors: Sequence[type[ModelkeepError]]) -> Document:
    """Return the content of refusals that are problem documents, with the codes that they can have."""
    codes = codes_of(errors)
    told = {"type": "object", "properties": {"status": {"const": status}, "code": {"enum": codes}}}
    first = min(errors, key=lambda error: codes.index(error.code))
    return {CONTENT_TYPE: {"schema": {"allOf": [schema("Problem"), told]}, "example": example(first)}}


def as_inference_errors(status: int, errors: Sequence[type[ModelkeepError]]) -> Document:
    """Return the content of refusals as the Open Inference Protocol has them: a sentence, and no code."""
    del status
    return as_json("InferenceError", **{errors[0].code: {"error": sentence(errors[0])}})


def codes_of(errors: Iterable[type[ModelkeepError]]) -> list[str]:
    """Return the codes of these errors, in their order, each once."""
    return list(dict.fromkeys(error.code for error in errors))


def example(error: type[ModelkeepError]) -> Document:
    """Return a problem document of this kind."""
    return {
        "type": f"urn:modelkeep:error:{error.code}",
        "title": TITLE[error.kind],
        "status": STATUS[error.kind],
        "code": error.code,
        "detail": sentence(error),
        "request_id": _EXAMPLE_ID,
    }


def sentence(error: type[ModelkeepError]) -> str:
    """Return what an error says, where nothing more exact is said."""
    return " ".join((error.__doc__ or error.code).split())


def refusals(errors: Iterable[type[ModelkeepError]], shape: Shape = as_problems) -> Document:
    """Return the responses, by status, that say no in the shape of a dialect: each with the codes that it may be."""
    ordered = sorted(dict.fromkeys(errors), key=lambda error: (STATUS[error.kind], error.code))
    return {
        str(status): _refusal(status, list(group), shape)
        for status, group in groupby(ordered, key=lambda error: STATUS[error.kind])
    }


def _refusal(status: int, errors: list[type[ModelkeepError]], shape: Shape) -> Document:
    lines = list(dict.fromkeys(f"- `{error.code}`: {sentence(error)}" for error in errors))
    headers = {"X-Request-ID": header("X-Request-ID")}
    if status in _RETRY or IdempotencyKeyInUse in errors:
        headers["Retry-After"] = header("Retry-After")
    if Limited in errors:
        headers |= {name: header(name) for name in ("RateLimit", "RateLimit-Policy")}
    if any(error.kind is Kind.UNAUTHENTICATED for error in errors):
        headers["WWW-Authenticate"] = header("WWW-Authenticate")
    return {"description": "\n".join(lines), "headers": headers, "content": shape(status, errors)}


@functools.cache
def shared() -> Document:
    """Return the components that all parts of the document refer to."""
    return {
        "headers": HEADERS,
        "parameters": PARAMETERS,
        "schemas": problem_schemas(),
        "securitySchemes": _KEYS | _PAGES,
    }
