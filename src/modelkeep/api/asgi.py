"""The control plane as one ASGI app: routes, errors, request ids, and documentation that needs no outside address."""

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from typing import Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline

from modelkeep.api import errors
from modelkeep.api.console import Built, Console
from modelkeep.api.description import ABOUT, Describe, camel, complete
from modelkeep.api.idempotency import Writes
from modelkeep.api.middleware import Guard, Requests
from modelkeep.api.opening import Opening
from modelkeep.api.pace import Pace
from modelkeep.api.refusals import Refused
from modelkeep.api.routes import (
    access,
    alerts,
    aliases,
    approvals,
    audit,
    auth,
    browser,
    deployments,
    feedback,
    health,
    lifecycle,
    models,
    people,
    predictions,
    replays,
    repository,
    rollouts,
    safety,
    schedules,
    shadows,
    sign_on,
    users,
    versions,
)
from modelkeep.api.services import Services
from modelkeep.infra.description import Document
from modelkeep.infra.settings import LimitSettings

_ROUTERS: Final = tuple(
    noun.router
    for noun in (
        *(health, users, auth, browser, sign_on, people, access, models, versions, lifecycle, aliases),
        *(deployments, schedules, rollouts, alerts, shadows, approvals, predictions, feedback, replays, safety, audit),
    )
)


def create_app(
    services: Services,
    opened: asyncio.Event | None = None,
    *,
    door: Describe = tuple,
    rates: LimitSettings | None = None,
    console: Built | None = None,
    made: Callable[[Describe], FastAPI] | None = None,
) -> FastAPI:
    """Build the app over these services; with `opened`, it refuses every request until that is set.

    `door` returns what the predict door answers by itself, for the document; it is called when somebody asks for that. `rates`
    are how often one may ask; without them there is no limit. `console` is the web console, which is there before the database.
    `made` returns an app like that of `routes`, for who builds many.
    """
    app = (made or routes)(door)
    app.state.services = services
    errors.install(app)
    app.add_middleware(Writes, idempotency=services.idempotency)
    app.add_middleware(
        Guard, access=services.access, sessions=services.sessions, identities=services.identities, pace=Pace(rates)
    )
    app.add_middleware(Refused, users=services.users, sessions=services.sessions, audit=services.audit)
    if opened is not None:
        app.add_middleware(Opening, opened=opened)
    if console is not None:
        app.add_middleware(Console, built=console)
    app.add_middleware(Requests)
    return app


def document(door: Describe) -> Document:
    """Return the OpenAPI document of the whole installation; `door` as for an app."""
    made: Document = routes(door).openapi()
    return made


def routes(door: Describe) -> FastAPI:
    """Build an app that has all routes and describes itself, and nothing behind them."""
    app: FastAPI = FastAPIOffline(
        title="Modelkeep",
        version=version("modelkeep"),
        redirect_slashes=False,  # a redirect would be built from the caller's own Host header
        description=ABOUT,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        generate_unique_id_function=camel,
        swagger_ui_parameters={"validatorUrl": None},  # which is somebody else's server
    )
    api = APIRouter()
    for router in _ROUTERS:
        api.include_router(router)
    app.include_router(api, prefix="/api/v1")  # given here: without one, each route would be analysed now, to be thrown away
    app.include_router(repository.router)

    def openapi() -> Document:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                license_info=app.license_info,
                routes=app.routes,
                separate_input_output_schemas=False,
            )
            app.openapi_schema = complete(made, (*_ROUTERS, repository.router), door())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # as FastAPI's manual has it
    return app
