"""What answers here, as one caller may know it: deployments that they may not ask are not there for them."""

from collections.abc import Iterator
from typing import Final

from modelkeep.contracts.access import Scope, Standing, decide, sees
from modelkeep.contracts.errors import Forbidden
from modelkeep.contracts.snapshot import ServedDeployment, ServedKey
from modelkeep.serving.pool import Pool, Served
from modelkeep.serving.router import DeploymentNotFound, Route, Router

_MOST_DECIDED: Final = 100_000


class Doors:
    """Remembers what was decided about standings and deployments, for as long as the snapshot is the same.

    All sessions of a person have one standing. It is known by its identity, and kept with what was decided about it: comparing
    grants would take longer than deciding.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._snapshot = -1
        self._places: dict[str, ServedDeployment] = {}
        self._decided: dict[tuple[int, str], tuple[Standing, bool]] = {}

    def check(self, key: ServedKey, deployment: str) -> None:
        """Raise `DeploymentNotFound` or `Forbidden` unless this key may ask this deployment."""
        if self._router.snapshot.number != self._snapshot:
            self._forget()
        there = self._places.get(deployment)
        if there is None:  # not remembered: callers could invent names until no memory is left
            raise DeploymentNotFound
        standing = key.standing
        known, allowed = self._decided.get((id(standing), deployment), (None, False))
        if known is None:
            allowed = decide(standing, Scope.PREDICT, there.place).allowed
            if len(self._decided) >= _MOST_DECIDED:
                self._decided.clear()
            self._decided[id(standing), deployment] = standing, allowed
        if not allowed:
            self._refuse(key, there)

    def open_to(self, key: ServedKey, deployment: str) -> bool:
        """Whether this key may ask this deployment."""
        try:
            self.check(key, deployment)
        except (DeploymentNotFound, Forbidden):
            return False
        return True

    def _forget(self) -> None:
        snapshot = self._router.snapshot
        self._places = {one.name: one for one in snapshot.deployments}
        self._decided.clear()
        self._snapshot = snapshot.number  # last: whatever fails before, nothing of the snapshot before is taken for news

    def _refuse(self, key: ServedKey, there: ServedDeployment) -> None:
        if not sees(key.standing, there.place):
            raise DeploymentNotFound
        raise Forbidden("You may see this model, but not ask it: that needs a role that gives 'predict'.")


class View:
    """What a router tells, without what one key may not ask. Without a key, where none is needed, all of it."""

    def __init__(self, router: Router, doors: Doors, key: ServedKey | None) -> None:
        self._router = router
        self._doors = doors
        self._key = key

    def find(self, deployment: str, version: str | None = None) -> Route:
        """Return what answers for `deployment`; raises `NotFound`, and `Forbidden` where the key may only see it."""
        if self._key is not None:
            self._doors.check(self._key, deployment)
        return self._router.find(deployment, version)

    def routes(self) -> dict[str, Served]:
        """Return the promoted version that answers for each deployment."""
        return {name: served for name, served in self._router.routes().items() if self._open(name)}

    def serving(self, deployment: str) -> list[Served]:
        """Return all versions that answer for a deployment that was found, the promoted one first."""
        return self._router.serving(deployment)

    def aliases(self, deployment: str) -> dict[str, int]:
        """Return the number of the version that each alias of a deployment that was found is answered by."""
        return self._router.aliases(deployment)

    def deployments(self) -> Iterator[ServedDeployment]:
        """Yield the deployments of the newest snapshot, whether they answer already or not."""
        return (one for one in self._router.snapshot.deployments if self._open(one.name))

    @property
    def pool(self) -> Pool:
        """The versions behind the routes."""
        return self._router.pool

    def _open(self, deployment: str) -> bool:
        return self._key is None or self._doors.open_to(self._key, deployment)
