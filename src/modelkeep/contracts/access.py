"""Who may do what: one decision for REST, gRPC, the console and jobs, in both planes. Pure, and deny by default.

A *standing* is what a caller brings: their grants, and what their credential is bounded to. A *place* is what they ask about:
a model with its workspace and owner, a workspace, or the installation. Power comes from grants and ownership alone; a key's
scopes and models only take away.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Final, Literal

import msgspec


class Scope(StrEnum):
    """One kind of thing that may be done; what grants give, and what bounds an API key.

    `admin` includes all others; `models:code` adds files that may run code to `models:write`.
    """

    PREDICT = "predict"
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    MODELS_CODE = "models:code"
    DEPLOYMENTS_WRITE = "deployments:write"
    PREDICTIONS_READ = "predictions:read"
    AUDIT_READ = "audit:read"
    METRICS_READ = "metrics:read"
    ADMIN = "admin"


class Role(StrEnum):
    """What a grant gives. `trusted` is a developer whose files may run code, where the installation allows such files."""

    VIEWER = "viewer"
    PREDICTOR = "predictor"
    DEVELOPER = "developer"
    TRUSTED = "trusted"
    RELEASER = "releaser"
    AUDITOR = "auditor"
    ADMIN = "admin"


_VIEWER: Final = frozenset({Scope.MODELS_READ})
_PREDICTOR: Final = _VIEWER | {Scope.PREDICT}
_DEVELOPER: Final = _PREDICTOR | {Scope.MODELS_WRITE, Scope.PREDICTIONS_READ}

GIVES: Final[dict[Role, frozenset[Scope]]] = {
    Role.VIEWER: _VIEWER,
    Role.PREDICTOR: _PREDICTOR,
    Role.DEVELOPER: _DEVELOPER,
    Role.TRUSTED: _DEVELOPER | {Scope.MODELS_CODE},
    Role.RELEASER: _PREDICTOR | {Scope.DEPLOYMENTS_WRITE, Scope.PREDICTIONS_READ},
    Role.AUDITOR: _VIEWER | {Scope.AUDIT_READ, Scope.PREDICTIONS_READ, Scope.METRICS_READ},
    Role.ADMIN: frozenset(Scope),
}
OWNER: Final = _DEVELOPER | {Scope.DEPLOYMENTS_WRITE}
"""What owners may do with their models. Code is not among it: having made a model says nothing of what its files may do."""
SEES: Final = (Scope.MODELS_READ, Scope.PREDICT, Scope.MODELS_WRITE, Scope.DEPLOYMENTS_WRITE, Scope.PREDICTIONS_READ)
"""Who may do one of these knows that a model is there; to others it is answered as if it were not."""


Guarded = Literal["promotion", "deletion", "override"]
"""Kinds of acts that an installation may ask two people for."""

PlaceKind = Literal["installation", "workspace", "model"]


class Place(msgspec.Struct, frozen=True):
    """What is asked about, by ids: a model where `model` is set, else a workspace where that is set, else the installation."""

    workspace: str = ""
    model: str = ""
    owner: str = ""

    @property
    def kind(self) -> PlaceKind:
        """What kind of place it is."""
        return "model" if self.model else "workspace" if self.workspace else "installation"

    @property
    def id(self) -> str:
        """The id of what it is; "" for the installation."""
        return self.model or self.workspace


INSTALLATION: Final = Place()


class Grant(msgspec.Struct, frozen=True):
    """A role on the installation, a workspace or a model (`on` is its id, "" for the installation).

    `through` is the group by which the subject has it, "" for one of their own.
    """

    role: Role
    kind: PlaceKind
    on: str = ""
    through: str = ""

    def covers(self, place: Place) -> bool:
        """Whether the place is what the grant is on, or lies in it."""
        if self.kind == "installation":
            return True
        return bool(self.on) and self.on == (place.workspace if self.kind == "workspace" else place.model)


class Standing(msgspec.Struct, frozen=True):
    """What a caller brings. `scopes` and `models` (ids) bound a key; None, as for a person's token, bounds nothing."""

    user: str
    grants: tuple[Grant, ...] = ()
    scopes: frozenset[Scope] | None = None
    models: frozenset[str] | None = None
    active: bool = True

    def carries(self, scope: Scope) -> bool:
        """Whether the credential lets its holder do this at all, wherever they may."""
        return self.scopes is None or scope in self.scopes or Scope.ADMIN in self.scopes


Reason = Literal["granted", "owner", "inactive", "scope", "other_model", "no_grant"]


class Decision(msgspec.Struct, frozen=True):
    """The answer, why, and by which grant."""

    allowed: bool
    reason: Reason
    grant: Grant | None = None


def decide(standing: Standing, scope: Scope, place: Place = INSTALLATION) -> Decision:
    """Return whether this caller may do this here."""
    if not standing.active or not standing.user:
        return Decision(allowed=False, reason="inactive")
    if not standing.carries(scope):
        return Decision(allowed=False, reason="scope")
    if standing.models is not None and place.model not in standing.models:
        return Decision(allowed=False, reason="other_model")
    for grant in _widest_first(standing.grants):
        if scope in GIVES[grant.role] and grant.covers(place):
            return Decision(allowed=True, reason="granted", grant=grant)
    if place.model and place.owner == standing.user and scope in OWNER:
        return Decision(allowed=True, reason="owner")
    return Decision(allowed=False, reason="no_grant")


def sees(standing: Standing, place: Place) -> bool:
    """Whether this caller may know that the place is there."""
    return any(decide(standing, scope, place).allowed for scope in SEES)


class Reach(msgspec.Struct, frozen=True):
    """Which models a caller may do something with, in a form that a database can be asked for.

    Reached is what one of the first four names; where `only` is set, it must be among those as well.
    """

    everything: bool = False
    workspaces: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    owner: str = ""
    only: frozenset[str] | None = None

    def holds(self, place: Place) -> bool:
        """Whether it reaches this model."""
        reached = self.everything or place.workspace in self.workspaces or place.model in self.models
        return (reached or (bool(self.owner) and place.owner == self.owner)) and (self.only is None or place.model in self.only)


def reach(standing: Standing, scopes: Iterable[Scope] = SEES) -> Reach:
    """Return the models with which this caller may do at least one of these."""
    carried = [scope for scope in scopes if standing.active and standing.user and standing.carries(scope)]
    giving = [grant for grant in standing.grants if any(scope in GIVES[grant.role] for scope in carried)]
    return Reach(
        everything=any(grant.kind == "installation" for grant in giving),
        workspaces=frozenset(grant.on for grant in giving if grant.kind == "workspace" and grant.on),
        models=frozenset(grant.on for grant in giving if grant.kind == "model" and grant.on),
        owner=standing.user if any(scope in OWNER for scope in carried) else "",
        only=standing.models,
    )


def _widest_first(grants: tuple[Grant, ...]) -> Iterator[Grant]:
    """Return the grants in the order in which they explain best: that on the installation before that on a single model."""
    for kind in ("installation", "workspace", "model"):
        yield from (grant for grant in grants if grant.kind == kind)
