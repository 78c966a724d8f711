"""Errors at this door: each becomes an RFC 9457 problem document. No stack, path or submitted value is in it.

Below `/v2` they have the Open Inference Protocol's shape.
"""

from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from modelkeep.contracts.errors import FieldError, Invalid, MethodNotAllowed, ModelkeepError, NotFound, TooLarge
from modelkeep.infra.problems import bare, problem

OPEN_INFERENCE: Final = "/v2/"


class NoSuchRoute(NotFound):
    """There is nothing at this address."""

    code = "no_such_route"


def respond(error: ModelkeepError, request_id: str, path: str) -> Response:
    """Return the answer to a request for `path` that failed."""
    if path.startswith(OPEN_INFERENCE):
        status, headers, body = bare(error)
        return Response(body, status, headers, "application/json")
    status, headers, body = problem(error, request_id)
    return Response(body, status, headers)


def install(app: FastAPI) -> None:
    """Have every kind of error answered as a problem document."""
    app.add_exception_handler(ModelkeepError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)


async def _known(request: Request, error: Exception) -> Response:
    assert isinstance(error, ModelkeepError)  # noqa: S101 - Starlette calls this for nothing else
    return respond(error, request.state.request_id, request.url.path)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - Starlette calls this for nothing else
    fields = tuple(FieldError(_path(one["loc"]), one["type"], one["msg"]) for one in error.errors())
    return respond(Invalid(fields=fields), request.state.request_id, request.url.path)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - Starlette calls this for nothing else
    kinds: dict[int, ModelkeepError] = {
        HTTPStatus.NOT_FOUND: NoSuchRoute(),
        HTTPStatus.METHOD_NOT_ALLOWED: MethodNotAllowed(),
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: TooLarge(),
    }
    answer = respond(kinds.get(error.status_code, Invalid()), request.state.request_id, request.url.path)
    answer.headers.update(error.headers or {})
    return answer


async def _gone(request: Request, error: Exception) -> Response:
    del error
    return respond(Invalid("The request ended before its body did."), request.state.request_id, request.url.path)


def _path(location: tuple[str | int, ...]) -> str:
    """Return where a field is as one text: `scopes[0]`."""
    named = location[1:] if location and location[0] in {"body", "query", "path", "header"} else location
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in named).removeprefix(".")
