"""What the door asks of a dialect, a wire format of predictions: its paths, who may use them, its answers and its refusals."""

from typing import Final, Protocol

from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import MethodNotAllowed, ModelkeepError
from modelkeep.infra.problems import bare, problem
from modelkeep.serving.messages import Request, Response, encoded

_READS: Final = ("GET", "HEAD")


class Dialect(Protocol):
    """One wire format. Paths come as their parts: `/v2/models/iris` is ["v2", "models", "iris"]."""

    @property
    def route(self) -> str:
        """What its requests are counted as."""
        ...

    def needs(self, request: Request, parts: list[str]) -> Scope | None:
        """Return the scope that a path asks of a key; None where it is open to everyone, as health is.

        To write models is the control plane's: what needs that is sent on, and answered and refused there.
        """
        ...

    async def answer(self, request: Request, parts: list[str]) -> Response:
        """Answer a request that may be answered.

        Raises `NotFound` or `MethodNotAllowed` for what the dialect does not have.
        """
        ...

    def refusal(self, request: Request, error: ModelkeepError) -> Response:
        """Return an error in the dialect's own shape."""
        ...


def only(method: str, request: Request) -> None:
    """Raise `MethodNotAllowed` for any other method."""
    if request.method != method:
        raise MethodNotAllowed(f"This address takes {method} only.", allow=(method,))


def reads(request: Request) -> None:
    """Raise `MethodNotAllowed` for any method but those that only read."""
    if request.method not in _READS:
        raise MethodNotAllowed(f"This address takes {' and '.join(_READS)} only.", allow=_READS)


def as_error(error: ModelkeepError) -> Response:
    """Return an error as `{"error": "..."}`."""
    status, headers, body = bare(error)
    return Response(status, body, headers=encoded(headers))


def as_problem(request: Request, error: ModelkeepError) -> Response:
    """Return an error as the problem document that every address without a dialect of its own answers with."""
    status, headers, body = problem(error, request.id)
    content_type = headers.pop("content-type").encode()
    return Response(status, body, content_type, encoded(headers))
