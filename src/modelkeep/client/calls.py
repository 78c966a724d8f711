"""Operations as methods: of a client that blocks, and of one that is awaited."""

import inspect
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, get_args

from modelkeep.client.connection import AsyncConnection, Connection
from modelkeep.client.server import Server
from modelkeep.client.steps import Steps

P = ParamSpec("P")
T = TypeVar("T")


class Blocks(Protocol):
    """What has a connection that blocks."""

    _connection: Connection


class Awaits(Protocol):
    """What has a connection that is awaited."""

    _connection: AsyncConnection


def blocking(operation: Callable[Concatenate[Server, P], Steps[T]]) -> Callable[Concatenate[Any, P], T]:
    """Return the method that runs an operation and blocks."""

    @wraps(operation)
    def method(self: Blocks, *args: P.args, **kwargs: P.kwargs) -> T:
        connection = self._connection
        return connection.run(operation(connection.server, *args, **kwargs))

    _describe(method, operation)
    return cast("Callable[Concatenate[Any, P], T]", method)


def awaited(operation: Callable[Concatenate[Server, P], Steps[T]]) -> Callable[Concatenate[Any, P], Awaitable[T]]:
    """Return the method that runs an operation and is awaited."""

    @wraps(operation)
    async def method(self: Awaits, *args: P.args, **kwargs: P.kwargs) -> T:
        connection = self._connection
        return await connection.run(operation(connection.server, *args, **kwargs))

    _describe(method, operation)
    return cast("Callable[Concatenate[Any, P], Awaitable[T]]", method)


def _describe(method: Any, operation: Callable[..., Steps[Any]]) -> None:  # noqa: ANN401 - a function, which takes attributes
    """Let a method say of itself what its operation says: with `self`, and with the result that its steps come to."""
    said = inspect.signature(operation)
    _server, *others = said.parameters.values()
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    result = get_args(said.return_annotation)[-1]
    method.__signature__ = said.replace(parameters=[own, *others], return_annotation=result)
    method.__annotations__ = {one.name: one.annotation for one in others} | {"return": result}
    del method.__wrapped__
