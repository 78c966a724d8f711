"""MLflow's scoring protocol: `/invocations`, `/ping`, `/version`, and Databricks' `/serving-endpoints/{name}/invocations`.

`/invocations` and `/ping` are what SageMaker asks of a container, too. Which deployment they mean, `serving/choice.py` says.
Errors are `{"error_code": ..., "message": ...}` with MLflow's codes; a content type that is not spoken is 415.

Source: mlflow, `mlflow/pyfunc/scoring_server`, `mlflow/exceptions.py`; the Databricks guide "Query serving endpoints for custom
models" for `client_request_id`, which is kept as the request's id.
"""

from typing import Final

import msgspec

from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import Kind, ModelkeepError, NotFound
from modelkeep.infra.headers import decent_request_id
from modelkeep.infra.problems import status_and_headers
from modelkeep.serving.calls import Call, Share
from modelkeep.serving.choice import Choice
from modelkeep.serving.dialects.dialect import only, reads
from modelkeep.serving.dialects.native import UnsupportedMediaType
from modelkeep.serving.dialects.scoring import CLIENT_REQUEST_ID, Reading, Wish, asked_of, check, predictions
from modelkeep.serving.engine import Engine, answer_headers
from modelkeep.serving.messages import Request, Response, encoded

NAME: Final = "mlflow"
READING: Final = Reading()
DATABRICKS: Final = Reading(also=(CLIENT_REQUEST_ID,))
PATHS: Final = ("invocations", "ping", "version", "serving-endpoints")
"""The first parts of its paths."""

_UNSUPPORTED: Final = 415
ERROR_CODES: Final = {
    Kind.INVALID: "BAD_REQUEST",
    Kind.UNAUTHENTICATED: "UNAUTHENTICATED",
    Kind.FORBIDDEN: "PERMISSION_DENIED",
    Kind.NOT_FOUND: "RESOURCE_DOES_NOT_EXIST",
    Kind.NOT_ALLOWED: "BAD_REQUEST",
    Kind.CONFLICT: "RESOURCE_CONFLICT",
    Kind.STALE: "RESOURCE_CONFLICT",
    Kind.TOO_LARGE: "BAD_REQUEST",
    Kind.MISDIRECTED: "BAD_REQUEST",
    Kind.LIMITED: "REQUEST_LIMIT_EXCEEDED",
    Kind.INTERNAL: "INTERNAL_ERROR",
    Kind.UNAVAILABLE: "TEMPORARILY_UNAVAILABLE",
    Kind.TIMEOUT: "DEADLINE_EXCEEDED",
    Kind.STORAGE_FULL: "RESOURCE_EXHAUSTED",
}
_encode = msgspec.json.Encoder().encode


class Mlflow:
    """Answers MLflow's paths. `product` is the installation's own version."""

    route: Final = NAME

    def __init__(self, engine: Engine, choice: Choice, product: str) -> None:
        self._engine = engine
        self._choice = choice
        self._product = product

    def needs(self, request: Request, parts: list[str]) -> Scope | None:
        """Return the scope that a path asks of a key: none for health and the version."""
        if parts in (["ping"], ["version"]):
            reads(request)
            return None
        only("POST", request)
        return Scope.PREDICT

    async def answer(self, request: Request, parts: list[str]) -> Response:
        """Answer a path; raises `NotFound` for those the protocol does not have."""
        match parts:
            case ["ping"]:
                return self._ping(request)
            case ["version"]:
                return Response(200, self._product.encode(), b"text/plain; charset=utf-8")
            case ["invocations"]:
                return await self._predict(self._choice.of(request), request, READING)
            case ["serving-endpoints", name, "invocations"]:
                return await self._predict(name, request, DATABRICKS)
            case _:
                raise NotFound("MLflow's scoring protocol has no such path.")

    def refusal(self, request: Request, error: ModelkeepError) -> Response:  # noqa: ARG002 - the protocol's errors name no request
        """Return an error in the protocol's own shape."""
        status, headers = status_and_headers(error)
        if isinstance(error, UnsupportedMediaType):
            status = _UNSUPPORTED
        body = _encode({"error_code": ERROR_CODES[error.kind], "message": error.message})
        return Response(status, body, headers=encoded(headers))

    def _ping(self, request: Request) -> Response:
        """Say whether the deployment answers that is meant by a request without a name of its own.

        Names are not looked at: whoever has no key is not told which deployments there are.
        """
        served = self._engine.view(request).find(self._choice.unnamed(request)).served
        return Response(200 if served.answers else 503, b"\n")

    async def _predict(self, deployment: str, request: Request, how: Reading) -> Response:
        return await self._engine.predict(deployment, None, request, NAME, lambda call: _read(call, request, how))


def _read(call: Call, request: Request, how: Reading) -> None:
    served = call.route.served
    asked = asked_of(served.version.signature, call.content_type.decode("latin-1"), call.body, how, served.matrix)
    check(served.version, asked.wish)
    given = decent_request_id(asked.id.encode())
    if given is not None:
        call.request_id = request.id = given
    call.ask(asked.payload, lambda call, share: _written(call, share, asked.wish))


def _written(call: Call, share: Share, wish: Wish) -> Response:
    return Response(200, _encode({"predictions": predictions(call, share, wish)}), headers=answer_headers(call))
