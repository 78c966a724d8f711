"""Every route is in the one table of who may ask for what (docs/reference/access.md), and the table says the truth."""

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator

import pytest
from fastapi import FastAPI
from starlette.routing import BaseRoute, Mount, Route

from fixtures import doors
from fixtures.access import filled, rpc_table, table
from fixtures.described import operations
from modelkeep.contracts.access import Scope
from modelkeep.serving import http
from modelkeep.serving.http import Door
from modelkeep.serving.messages import Request, segments


def _walked(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str]]:
    for route in routes:
        if isinstance(route, Mount):
            yield "GET", f"{prefix}{route.path}/..."
        elif isinstance(route, Route):
            yield from ((method, prefix + route.path) for method in sorted(route.methods or ()) if method != "HEAD")
        else:  # a router that was included: FastAPI keeps it whole
            yield from _walked(route.original_router.routes, prefix + route.include_context.prefix)


def _own_paths() -> set[str]:
    """The paths that the door answers without a dialect, from the patterns of its code."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(Door._own)))
    patterns = [one.pattern for one in ast.walk(tree) if isinstance(one, ast.match_case)]
    parts = [[ast.literal_eval(part.value) for part in one.patterns] for one in patterns if isinstance(one, ast.MatchSequence)]
    return {"/" + "/".join(one) for one in parts}


def test_every_operation_of_the_document_is_in_the_table_and_asks_for_the_same_scope():
    described = {}
    for method, path, operation in operations():
        scopes = [scope for way in operation["security"] for names in way.values() for scope in names]
        described[method, path] = (scopes[0] if scopes else "") if operation["security"] else None
    pages = {route for route in table() if route[1].startswith(("/docs", "/redoc", "/openapi.json", "/static-offline-docs"))}
    assert {route: who for route, who in table().items() if route not in pages} == described
    assert all(table()[route] == "" for route in pages)


def test_every_route_of_the_application_is_in_the_table():
    app: FastAPI = asgi_app()
    walked = set(_walked(app.routes))
    assert ("GET", "/static-offline-docs/...") in walked
    assert walked - table().keys() == set()
    assert {route for route in table() if route[1].startswith("/api/v1/")} - walked == {
        ("POST", "/api/v1/predict/{deployment}")
    }


def asgi_app() -> FastAPI:
    """The control plane's application, with nothing behind it."""
    from modelkeep.api import asgi

    return asgi.routes(tuple)


def test_every_path_of_the_door_is_in_the_table():
    paths = {path for _method, path in table()}
    assert _own_paths() == {"/healthz", "/readyz", "/health", "/metrics"}
    assert _own_paths() <= paths
    known = {path.split("/")[1] for path in paths}
    assert doors.door()._dialects.keys() - known == set(), "a dialect describes itself in modelkeep/serving/description"


def _unruled(answered: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """The paths of a dialect's code that no row of the table has; code may match a path without its first part."""
    ruled = {tuple(doors.ANY if "{" in part else part for part in path.strip("/").split("/")) for _method, path in table()}
    return {path for path in answered if path not in ruled | {one[1:] for one in ruled} | {("",)}}


def test_every_path_that_the_code_of_a_dialect_answers_is_in_the_table():
    door = doors.door()
    dialects = {type(one) for one in (door._native, *door._dialects.values())}
    found = {dialect.__name__: doors.answered(dialect) for dialect in dialects}
    assert all(found.values())
    assert {name: unruled for name, paths in found.items() if (unruled := _unruled(paths))} == {}


class _Newer:
    """A dialect with paths that nobody has said anything of; for the control."""

    def answer(self, method: str, parts: list[str]) -> str | None:
        match (method, parts):
            case ("GET", ["v2", "models", name, "ready" | "secrets"]):
                return name
            case _:
                return None


def test_a_new_path_without_a_row_is_found():
    assert _unruled(doors.answered(_Newer)) == {("v2", "models", doors.ANY, "secrets")}
    app = asgi_app()
    app.get("/api/v1/new")(lambda: None)
    app.mount("/more-static", app)
    assert {("GET", "/api/v1/new"), ("GET", "/more-static/...")} <= set(_walked(app.routes)) - table().keys()


def test_every_rpc_is_in_the_table_and_asks_for_what_it_says():
    asked = doors.scopes()
    assert rpc_table() == {path: None if scope is None else scope.value for path, scope in asked.items()}
    assert sum(scope is not None for scope in asked.values()) >= 10


def test_a_dialect_asks_for_what_the_table_says():
    door, asked = doors.door(), 0
    for (method, path), who in table().items():
        request = Request(method, filled(path), [])
        parts = segments(request.path)
        dialect = door._native if http._is_native(request.path) else door._dialects.get(parts[0])
        if dialect is not None:
            asked += 1
            assert dialect.needs(request, parts) == (None if who is None else Scope(who)), (method, path)
    assert asked >= 12


@pytest.mark.parametrize("who", ["anyone", "any key", *(scope for scope in Scope if scope is not Scope.MODELS_CODE)])
def test_the_table_has_a_row_for_everybody(who: str):
    """Except for files that may run code: that adds to models:write, and opens no route by itself."""
    wanted = {"anyone": None, "any key": ""}.get(who, who)
    assert wanted in table().values()
