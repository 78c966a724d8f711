"""The control plane as one ASGI app: routes, errors, request ids, and documentation that needs no outside address."""

import asyncio
from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline

from modelkeep.api import errors
from modelkeep.api.middleware import Guard, Requests
from modelkeep.api.opening import Opening
from modelkeep.api.routes import audit, deployments, health, models, predictions, replays, safety, users, versions
from modelkeep.api.services import Services


def create_app(services: Services, opened: asyncio.Event | None = None) -> FastAPI:
    """Build the app over these services; with `opened`, it refuses every request until that is set."""
    app: FastAPI = FastAPIOffline(
        title="Modelkeep",
        version=version("modelkeep"),
        redirect_slashes=False,  # a redirect would be built from the caller's own Host header
        description="Keeps, serves and watches machine-learning models inside your own walls.",
    )
    app.state.services = services
    api = APIRouter(prefix="/api/v1")
    for noun in (health, users, models, versions, deployments, predictions, replays, safety, audit):
        api.include_router(noun.router)
    app.include_router(api)
    errors.install(app)
    app.add_middleware(Guard, users=services.users)
    if opened is not None:
        app.add_middleware(Opening, opened=opened)
    app.add_middleware(Requests)
    return app
