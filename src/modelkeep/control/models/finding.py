"""Models and versions as they are found for somebody: those that they may not see are not there."""

import re
from typing import Final

import msgspec

from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import SYSTEM, Actor
from modelkeep.control.models import store
from modelkeep.control.models.errors import InvalidParent, ModelNotFound, VersionNotFound
from modelkeep.control.models.rules import Model, Version
from modelkeep.infra.db import Transaction

_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")


async def found_model(
    tx: Transaction, actor: Actor, name: str, scope: Scope = Scope.MODELS_READ, *, for_update: bool = False
) -> Model:
    """Return a model with which the actor may do this; to whom may not see it, there is none."""
    model = await store.model(tx, name, for_update=for_update)
    if model is None:
        raise ModelNotFound
    actor.need(scope, model.place, unseen=ModelNotFound)
    return (await with_aliases(tx, [model]))[0]


async def with_aliases(tx: Transaction, models: list[Model]) -> list[Model]:
    """Return models with the names that point to their versions."""
    pointing: dict[str, dict[str, int]] = {model.id: {} for model in models}
    for alias in await store.aliases_of(tx, pointing):
        pointing[alias.model_id][alias.name] = alias.version
    return [msgspec.structs.replace(model, aliases=pointing[model.id]) for model in models]


async def found_version(tx: Transaction, model: Model, number: int) -> Version:
    """Return a version of a model; raises `VersionNotFound`."""
    version = await store.version(tx, model.name, number)
    if version is None:
        raise VersionNotFound
    return version


async def version_for_update(tx: Transaction, version_id: str) -> tuple[Model, Version]:
    """Return a version with its model, whose row is kept to `tx`."""
    version = await store.version_by_id(tx, version_id)
    if version is None:
        raise VersionNotFound
    model = await found_model(tx, SYSTEM, version.model, for_update=True)
    return model, await found_version(tx, model, version.number)


async def found_parent(tx: Transaction, actor: Actor, model: Model, named: str) -> str | None:
    """Return the id of the version that is named as another's parent, None for nothing; raises `InvalidParent`.

    It is a number of the same model, MODEL/NUMBER, or an id, of a version that the actor may see.
    """
    if not named:
        return None
    of, _slash, number = named.rpartition("/")
    if _NUMBER.fullmatch(number):
        found = await store.version(tx, of or model.name, int(number))
    else:
        found = await store.version_by_id(tx, named)
    if found is None or not await may_see(tx, actor, {found.model_id}):
        raise InvalidParent
    return found.id


async def may_see(tx: Transaction, actor: Actor, model_ids: set[str]) -> set[str]:
    """Return which of these models the actor may read."""
    return {one.id for one in await store.models_by_id(tx, model_ids) if actor.may(Scope.MODELS_READ, one.place)}
