"""The Open Inference Protocol's repository: loading and unloading change what answers, so they are the control plane's.

To unload a model is to archive it: it answers no more, and nothing is deleted. To load it is to restore it. Both answer once
every server says that it is so, as the protocol's clients expect. All else below `/v2` the servers answer themselves.
Source: github.com/triton-inference-server/server, docs/protocol/extension_model_repository.md.
"""

from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Path, Request

from modelkeep.api.auth import Writer
from modelkeep.api.description import raises
from modelkeep.api.services import Behind
from modelkeep.contracts.errors import ApprovalNeeded, Invalid
from modelkeep.control.deployments.errors import CannotBeServed, DeploymentNotFound, NothingPromoted, NotSettled
from modelkeep.control.models.errors import ModelNotFound, ModelTrashed, Purged

router = APIRouter(prefix="/v2/repository/models", tags=["open inference"])
Name = Annotated[str, Path(max_length=100, description="The model's name.")]
_LOADED_WITHIN_S: Final = 50.0
_UNLOADED_WITHIN_S: Final = 10.0


class InvalidRepositoryRequest(Invalid):
    """The body is empty, or a JSON object with `parameters`."""

    code = "invalid_repository_request"


class _Wish(msgspec.Struct):
    parameters: dict[str, Any] | None = None


_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": False,
        "content": {
            "application/json": {
                "schema": {"type": "object", "properties": {"parameters": {"type": ["object", "null"]}}},
                "example": {},
            }
        },
    }
}
_EMPTY: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Every server has followed.", "content": {"application/json": {"example": {}}}}
}
_decode = msgspec.json.Decoder(_Wish).decode


@router.post("/{name}/load", openapi_extra=_BODY, responses=_EMPTY)
@raises(
    CannotBeServed,
    DeploymentNotFound,
    InvalidRepositoryRequest,
    ModelNotFound,
    ModelTrashed,
    NothingPromoted,
    NotSettled,
    Purged,
)
async def repository_model_load(name: Name, actor: Writer, behind: Behind, request: Request) -> dict[str, str]:
    """Restore a model if it is archived, and answer once every server answers for it."""
    await _read(request)
    await behind.lifecycle.restore(actor, name, from_trash=False)
    await behind.deployments.settled(name, answers=True, patience_s=_LOADED_WITHIN_S)
    return {}


@router.post("/{name}/unload", openapi_extra=_BODY, responses=_EMPTY)
@raises(ApprovalNeeded, DeploymentNotFound, InvalidRepositoryRequest, ModelNotFound, ModelTrashed, NotSettled, Purged)
async def repository_model_unload(name: Name, actor: Writer, behind: Behind, request: Request) -> dict[str, str]:
    """Archive a model, and answer once no server answers for it any more."""
    await _read(request)
    await behind.lifecycle.archive(actor, name)
    await behind.deployments.settled(name, answers=False, patience_s=_UNLOADED_WITHIN_S)
    return {}


async def _read(request: Request) -> None:
    """Take a body of the protocol's form, whatever its type says. Its parameters say nothing that is told here otherwise."""
    body = await request.body()
    try:
        if body.strip():
            _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRepositoryRequest from error
