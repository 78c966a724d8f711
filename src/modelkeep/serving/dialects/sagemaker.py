"""SageMaker's runtime: `POST /endpoints/{name}/invocations`, as boto3's `sagemaker-runtime` sends it to another address.

An endpoint is a deployment, and its one production variant is the version that answers, by its number. Bodies and answers are
those of `dialects/scoring.py`; CSV has no header unless it says so. Credentials come by `infra/headers.presented_key`: the
access key id is the API key. Errors have AWS's shape: `ModelError` for what the model cannot answer, else `ValidationError`.

Source: botocore, `data/sagemaker-runtime/2017-05-13/service-2.json`, `botocore/parsers.py`.
"""

import re
from typing import Final

import msgspec

from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import Invalid, Kind, ModelFailed, ModelkeepError, NotFound
from modelkeep.infra.headers import decent_request_id
from modelkeep.infra.problems import status_and_headers
from modelkeep.serving.calls import Call, Share
from modelkeep.serving.dialects.dialect import only
from modelkeep.serving.dialects.scoring import Reading, Wish, asked_of, check, predictions
from modelkeep.serving.engine import Engine, answer_headers
from modelkeep.serving.messages import Request, Response, encoded

NAME: Final = "sagemaker"
READING: Final = Reading(headless=True)

_ANY_VARIANT: Final = b"AllTraffic"
_VARIANT: Final = b"x-amzn-sagemaker-target-variant"
_MODEL: Final = b"x-amzn-sagemaker-target-model"
_INFERENCE: Final = b"x-amzn-sagemaker-inference-id"
_ATTRIBUTES: Final = b"x-amzn-sagemaker-custom-attributes"
_NOT_OFFERED: Final = (
    b"x-amzn-sagemaker-target-container-hostname",
    b"x-amzn-sagemaker-inference-component",
    b"x-amzn-sagemaker-enable-explanations",
    b"x-amzn-sagemaker-session-id",
)
_ARCHIVE: Final = re.compile(r"/?(.*?)(?:\.tar\.gz)?")
_ERRORS: Final = {
    Kind.INVALID: "ModelError",
    Kind.UNAUTHENTICATED: "UnrecognizedClientException",
    Kind.FORBIDDEN: "AccessDeniedException",
    Kind.NOT_FOUND: "ValidationError",
    Kind.NOT_ALLOWED: "ValidationError",
    Kind.CONFLICT: "ValidationError",
    Kind.STALE: "ValidationError",
    Kind.TOO_LARGE: "ValidationError",
    Kind.MISDIRECTED: "ValidationError",
    Kind.LIMITED: "ThrottlingException",
    Kind.INTERNAL: "InternalFailure",
    Kind.UNAVAILABLE: "ServiceUnavailable",
    Kind.TIMEOUT: "ModelError",
    Kind.STORAGE_FULL: "ServiceUnavailable",
}
_encode = msgspec.json.Encoder().encode


class NotOffered(Invalid):
    """This header would have something else answer, and there is nothing of its kind here: leave it out."""

    code = "header_not_offered"


class SageMaker:
    """Answers everything below `/endpoints`."""

    route: Final = NAME

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def needs(self, request: Request, parts: list[str]) -> Scope:  # noqa: ARG002 - all its paths are predictions
        """Return the scope that a path asks of a key."""
        only("POST", request)
        return Scope.PREDICT

    async def answer(self, request: Request, parts: list[str]) -> Response:
        """Answer an invocation; raises `NotFound` for the runtime's other operations."""
        match parts:
            case ["endpoints", endpoint, "invocations"]:
                given = decent_request_id(request.header(_INFERENCE) or b"")
                request.id = given or request.id
                return await self._invoke(endpoint, request)
            case _:
                raise NotFound("Of SageMaker's runtime, InvokeEndpoint is served here.")

    def refusal(self, request: Request, error: ModelkeepError) -> Response:
        """Return an error as AWS's clients parse it."""
        status, headers = status_and_headers(error)
        code = _ERRORS[error.kind]
        if isinstance(error, ModelFailed):
            code = "ModelError"
        elif isinstance(error, NotOffered):
            code = "ValidationError"
        body: dict[str, object] = {"Message": error.message}
        if code == "ModelError":
            body |= {"OriginalStatusCode": status, "OriginalMessage": error.message}
        return Response(
            status, _encode(body), headers=(*encoded(headers), (b"x-amzn-errortype", code.encode()), _request_id(request))
        )

    async def _invoke(self, endpoint: str, request: Request) -> Response:
        for name in _NOT_OFFERED:
            if request.header(name):
                raise NotOffered(f"{name.decode()} is not offered here: leave it out.")
        target = request.header(_MODEL)
        if target:
            found = _ARCHIVE.fullmatch(target.decode("latin-1"))
            endpoint = found[1] if found else endpoint
        variant = request.header(_VARIANT) or _ANY_VARIANT
        version = None if variant == _ANY_VARIANT else variant.decode("latin-1")
        return await self._engine.predict(endpoint, version, request, NAME, lambda call: _read(call, request))


def _read(call: Call, request: Request) -> None:
    served = call.route.served
    asked = asked_of(served.version.signature, call.content_type.decode("latin-1"), call.body, READING, served.matrix)
    check(served.version, asked.wish)
    call.ask(asked.payload, lambda call, share: _written(call, share, asked.wish, request))


def _written(call: Call, share: Share, wish: Wish, request: Request) -> Response:
    headers = [
        *answer_headers(call),
        (b"x-amzn-invoked-production-variant", call.route.served.number),
        _request_id(request),
    ]
    attributes = request.header(_ATTRIBUTES)
    if attributes:
        headers.append((_ATTRIBUTES, attributes))
    return Response(200, _encode({"predictions": predictions(call, share, wish)}), headers=tuple(headers))


def _request_id(request: Request) -> tuple[bytes, bytes]:
    return b"x-amzn-requestid", request.id.encode()
