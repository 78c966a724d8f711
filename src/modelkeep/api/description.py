"""The OpenAPI document: what FastAPI knows of the routes, what each may refuse, examples, and what the predict door answers.

A route says with `raises` which errors its services may raise; what every route may answer is added here. The door's part is
handed in when the app is made, as its code is another plane's.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from fastapi import APIRouter
from fastapi.routing import APIRoute

from modelkeep.api.errors import OPEN_INFERENCE
from modelkeep.api.examples import EXAMPLES
from modelkeep.api.idempotency import API, InvalidIdempotencyKey
from modelkeep.api.opening import NotOpenYet
from modelkeep.contracts.errors import (
    AnswerSealed,
    Forbidden,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    Internal,
    Invalid,
    Limited,
    ModelkeepError,
    StorageFull,
    TooLarge,
)
from modelkeep.infra.cookies import CsrfRefused
from modelkeep.infra.description import (
    NOT_ADMITTED,
    SCHEMAS,
    Description,
    Document,
    Shape,
    as_inference_errors,
    as_problems,
    header,
    of_pages,
    parameter,
    refusals,
    shared,
)
from modelkeep.infra.problems import CONTENT_TYPE

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Describe = Callable[[], Iterable[Description]]

ABOUT: Final = """Keeps, serves and watches machine-learning models inside your own walls.

Every route but health, the first set-up and the ways to log in needs an API key, `X-API-Key: mk_...` or
`Authorization: Bearer mk_...`, or the access token of a login; a page of this host has its session's in a cookie, and where
a request shows nothing, a client certificate may stand for a key. The scope that a key needs stands with each route; `admin`
includes all others. What its owner may do, roles and ownership say, and what they may not see is answered as what is not
there. Lists take `limit` and `cursor`. An error is a problem document (RFC 9457) with a stable `code`, or, at a dialect's
own addresses, of that dialect's shape. A write that comes again with its `Idempotency-Key` is not done again: it gets the
first answer.
"""
_TAGS: Final = {
    "models": "Named lines of versions.",
    "lifecycle": "Deprecation, trash, legal hold, purge, and where versions came from.",
    "aliases": "Names that point to versions, and where they have pointed.",
    "versions": "Uploads: their validation, their files, their life.",
    "deployments": "What answers where, and how.",
    "rollouts": "New versions that take over step by step, or are taken back.",
    "alerts": "What somebody has to look at, and who does.",
    "predictions": "The history of predictions.",
    "feedback": "What is told of predictions later: right or wrong, and what is true.",
    "replays": "Predictions, answered again by the uploaded file itself.",
    "keys": "The first set-up, and API keys.",
    "approvals": "What needs a second person.",
    "access": "Workspaces, groups and roles: who may do what.",
    "people": "People and services: logging in and out, roles, passwords, invitations.",
    "safety": "What administrators allow although it is dangerous.",
    "audit": "Who changed what, and who was refused.",
    "control plane": "Whether the control plane works.",
}
_DONE: Final = {
    "200": "The answer.",
    "201": "It was made.",
    "202": "It was taken, and is worked on.",
    "204": "Done.",
    "303": "Go on at `Location`.",
}
_CODE: Final = re.compile(r"^- `(\w+)`:", re.MULTILINE)
_MIXED: Final = re.compile(r"\A(?!- `)")  # an answer of the same status comes first
_MOST_IN_A_NAME: Final = 4
_READS: Final = frozenset({"get", "head"})
_CHANGE_NOTHING: Final = frozenset(
    {
        *("checkUpload", "login", "loginWithDirectory", "planChange", "refresh"),
        *("browserLogin", "loginBrowserWithDirectory", "browserRefresh", "browserLogout", "finishTerminalSignOn"),
    }
)
"""Operations that only look, although their method says otherwise, or that are done whatever comes of their request."""
_PAGES_ALONE: Final = frozenset({"getBrowserSession"})
_RAISES: Final = "raises"


def raises(*errors: type[ModelkeepError]) -> Callable[[Endpoint], Endpoint]:
    """Say which errors of its own a route may answer with, beside those that every route may."""

    def note(endpoint: Endpoint) -> Endpoint:
        endpoint.__dict__[_RAISES] = errors
        return endpoint

    return note


def camel(route: APIRoute) -> str:
    """Return what generated clients call a route: `listModels` for `list_models`."""
    first, *others = route.name.split("_")
    return first + "".join(word.capitalize() for word in others)


def complete(made: Document, routers: Iterable[APIRouter], door: Iterable[Description]) -> Document:
    """Return the whole document: what FastAPI made, finished, and what the door says of itself."""
    errors = {
        camel(route): getattr(route.endpoint, _RAISES, ())
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
    }
    components, parts = shared(), tuple(door)
    in_front = tuple(error for part in parts for error in part.forwarding)
    made["paths"] = _renamed(made["paths"])
    for path, item in made["paths"].items():
        for method, operation in item.items():
            own = (*errors[operation["operationId"]], *in_front)
            if path.startswith(API) and method not in _READS and operation["operationId"] not in _CHANGE_NOTHING:
                own = (*own, *_repeatable(operation))
            _finish(operation, method, own, as_inference_errors if path.startswith(OPEN_INFERENCE) else as_problems)
    schemas = _together(_schemas(made["components"]["schemas"]), *(part.schemas for part in parts), components["schemas"])
    paths = _together(made["paths"], *(part.paths for part in parts))
    for item in paths.values():
        for method, operation in item.items():
            if operation["security"]:
                by_cookie = of_pages(operation["security"], method)
                keys = [] if operation["operationId"] in _PAGES_ALONE else operation["security"]
                operation["security"] = [*keys, by_cookie]
    responses = _shared_refusals(paths)
    about = {part.tag: part.about for part in parts} | _TAGS
    return {
        "openapi": made["openapi"],
        "info": made["info"],
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in about.items()],
        "paths": paths,
        "components": {**components, "responses": responses, "schemas": {name: schemas[name] for name in sorted(schemas)}},
    }


def _shared_refusals(paths: Document) -> Document:
    """Have refusals with few codes stand once, under a name made of these, and operations refer to them; return them."""
    found: Document = {}
    for item in paths.values():
        for operation in item.values():
            for status, told in operation["responses"].items():
                codes = _CODE.findall(told["description"])
                if not 0 < len(codes) <= _MOST_IN_A_NAME or _MIXED.search(told["description"]):
                    continue
                shape = "" if CONTENT_TYPE in told["content"] else f"{operation['tags'][0].replace(' ', '_')}."
                name = f"{shape}{status}.{'.'.join(codes)}"
                if found.setdefault(name, told) == told:  # the planes may say the same code in other words
                    operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}
    return {name: found[name] for name in sorted(found)}


def _together(*parts: Document) -> Document:
    """Return the entries of all parts; raises `ValueError` where two have one of the same name."""
    found: Document = {}
    for part in parts:
        twice = found.keys() & part.keys()
        if twice:
            raise ValueError(f"described twice: {', '.join(sorted(twice))}")
        found |= part
    return found


def operations(document: Mapping[str, Any]) -> Iterable[tuple[str, Document]]:
    """Yield the method and the description of each operation of a document."""
    for item in document["paths"].values():
        yield from item.items()


def _finish(operation: Document, method: str, own: tuple[type[ModelkeepError], ...], shape: Shape) -> None:
    """Give an operation what all have: a summary, the ways to be refused, the request's id."""
    said = operation["description"]
    operation["summary"] = re.split(r"[.:;]( |$|\n)", said)[0]
    scopes = {scope for way in operation.setdefault("security", []) for names in way.values() for scope in names}
    if scopes:
        operation["description"] = f"{said}\n\nNeeds a key with the scope {' and '.join(f'`{one}`' for one in scopes)}."
    elif operation["security"]:
        operation["description"] = f"{said}\n\nNeeds a key, of any scope."
    errors: list[type[ModelkeepError]] = [*own, NotOpenYet, Internal]
    if operation["security"]:
        errors += [*NOT_ADMITTED, CsrfRefused, Limited]
    if scopes:
        errors.append(Forbidden)
    if operation.get("parameters") or "requestBody" in operation:
        errors.append(Invalid)
    if "requestBody" in operation:
        errors.append(TooLarge)
    if method not in _READS:
        errors.append(StorageFull)
    answers = {status: _answer(status, told) for status, told in operation["responses"].items() if status != "422"}
    operation["responses"] = answers | refusals(errors, shape)
    operation["parameters"] = [*operation.get("parameters", []), parameter("RequestId")]


def _repeatable(operation: Document) -> tuple[type[ModelkeepError], ...]:
    """Say of a write that it may be repeated with a key; return how it may be refused for that."""
    operation["parameters"] = [*operation.get("parameters", []), parameter("IdempotencyKey")]
    replayed = {"Idempotency-Replayed": header("Idempotency-Replayed")}
    for status, told in operation["responses"].items():
        if status in _DONE:
            told["headers"] = told.get("headers", {}) | replayed
    return InvalidIdempotencyKey, IdempotencyKeyReused, IdempotencyKeyInUse, AnswerSealed


def _answer(status: str, told: Document) -> Document:
    """Return an answer with the header that each has, and a description of its own."""
    about = _DONE.get(status, "") if told["description"] == "Successful Response" else told["description"]
    return told | {"description": about, "headers": {"X-Request-ID": header("X-Request-ID"), **told.get("headers", {})}}


# ---- names


_QUALIFIED: Final = re.compile(r"modelkeep__(?:\w+__)?(\w+?)s__rules__(\w+)")
_UNUSED: Final = frozenset({"HTTPValidationError", "ValidationError"})  # FastAPI's own refusal, which is never sent
_OWN_NAMES: Final = {
    "AskedAnswer": "ReplayAsked",
    "BatchingAnswer": "BatchingSettings",
    "CheckAnswer": "ValidationCheck",
    "CachedAnswer": "CacheState",
    "CodeFormatsAnswer": "CodeFormatsSwitch",
    "Compared": "ComparedAs",
    "ComparisonAnswer": "ReplayComparison",
    "DifferenceAnswer": "PlannedDifference",
    "Describe": "NewDescription",
    "DetailsAnswer": "ReplayDetails",
    "EntryAnswer": "AuditEntry",
    "Erased": "AuditErased",
    "Erasure": "AuditErasure",
    "FailureAnswer": "ReplayFailure",
    "FileAnswer": "ReplayedFile",
    "HealthAnswer": "ControlPlaneHealth",
    "HandedOver": "SignOnCode",
    "ImageAnswer": "ImageSpec",
    "JwkAnswer": "PublicKey",
    "JwksAnswer": "PublicKeys",
    "Login": "Credentials",
    "MeAnswer": "Caller",
    "MemoryAnswer": "MemorySettings",
    "Pair": "ComparedPair",
    "MomentAnswer": "DeploymentMoment",
    "MoveAnswer": "AliasMove",
    "PartAnswer": "AnsweringVersion",
    "PredictionAnswer": "PredictionRecord",
    "RecordingAnswer": "RecordingSettings",
    "ReplicasAnswer": "ReplicaSettings",
    "ReportAnswer": "ValidationReport",
    "SandboxAnswer": "SandboxSwitch",
    "ServingAnswer": "ServingState",
    "InvitationsAnswer": "InvitationList",
    "Invite": "NewInvitation",
    "Register": "Registration",
    "RevisionAnswer": "DeploymentRevision",
    "RotatedAnswer": "NewSigningKey",
    "RuleAnswer": "TrafficRule",
    "SessionsAnswer": "SessionList",
    "SetUpAnswer": "SetUpDone",
    "SettingsAnswer": "DeploymentSettings",
    "ShadowedAnswer": "TrafficShadow",
    "Side": "PredictionSide",
    "SideAnswer": "ReplaySide",
    "Skip": "SkipReason",
    "SkippedAnswer": "SkippedPrediction",
    "SummaryAnswer": "ReplaySummary",
    "TrialAnswer": "RolloutStep",
}
"""Names on the wire of classes whose own names say too little beside all others."""


def schema_name(name: str) -> str:
    """Return what a schema is called on the wire: `Model` for `ModelAnswer`, `ModelPage` for a page of them."""
    page = re.fullmatch(r"Page_(\w+)_", name)
    if page:
        return f"{schema_name(page[1])}Page"
    qualified = _QUALIFIED.fullmatch(name)
    if qualified:
        return f"{qualified[1].capitalize()}{qualified[2]}"
    return _OWN_NAMES.get(name, name.removesuffix("Answer"))


def _schemas(made: Document) -> Document:
    """Return the schemas by their names on the wire, each with its examples."""
    named = _together(*({schema_name(name): one} for name, one in _renamed(made).items() if name not in _UNUSED))
    return {name: one | ({"examples": EXAMPLES[name]} if name in EXAMPLES else {}) for name, one in named.items()}


def _renamed(value: Any) -> Any:  # noqa: ANN401 - any part of the document
    """Return a part of the document with the schemas' own names, examples, and without titles that only repeat a name."""
    if isinstance(value, list):
        return [_renamed(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return value | {"$ref": SCHEMAS + schema_name(value["$ref"].removeprefix(SCHEMAS))}
    return {key: _renamed(one) for key, one in value.items() if not (key == "title" and isinstance(one, str))}
