"""From a deployment's name to the version that answers. A version takes over only once it is warm; the old one drains."""

from collections.abc import Callable
from typing import TypeVar

import structlog

from modelkeep.contracts.errors import NotFound
from modelkeep.contracts.prediction import Heartbeat
from modelkeep.contracts.snapshot import (
    DeploymentSettings,
    GoldenCheck,
    KeepLoaded,
    Memory,
    ServedDeployment,
    ServedVersion,
    Snapshot,
)
from modelkeep.serving.metrics import Meter
from modelkeep.serving.pool import Pool, Served
from modelkeep.serving.recorder import is_plain

T = TypeVar("T")

log = structlog.get_logger(__name__)

_STRICTNESS: dict[GoldenCheck, int] = {"off": 0, "warn": 1, "enforce": 2}
_DEMANDS: dict[KeepLoaded, int] = {"on_demand": 0, "auto": 1, "always": 2}


class DeploymentNotFound(NotFound):
    """No deployment of this name answers here."""

    code = "deployment_not_found"


class VersionNotServed(NotFound):
    """This version is not the one that answers; only the promoted version can be asked."""

    code = "version_not_served"


class UnderWay:
    """How many predictions of a deployment are under way: one count for all routes that the deployment has had."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Route:
    """What answers for a deployment now: a version, the deployment's settings, and where its predictions are counted.

    `plain`: its predictions are written down as they went over the wire. `underway` counts its predictions.
    """

    __slots__ = ("meter", "name", "plain", "recording", "served", "settings", "underway")

    def __init__(self, deployment: ServedDeployment, served: Served, meter: Meter) -> None:
        self.name = deployment.name
        self.settings = deployment.settings
        self.recording = deployment.settings.recording
        self.plain = is_plain(self.recording)
        self.served = served
        self.meter = meter
        self.underway = UnderWay()


class Router:
    """Which version answers for each deployment, now."""

    def __init__(self, pool_of: Callable[[Callable[[], None]], Pool], meter_of: Callable[[str, int], Meter]) -> None:
        self._pool = pool_of(self.settle)
        self._meter_of = meter_of
        self._snapshot = Snapshot(0, 0.0)
        self._versions: dict[str, ServedVersion] = {}
        self._deployments: dict[str, ServedDeployment] = {}
        self._routes: dict[str, Route] = {}
        self._leaving: dict[str, Served] = {}

    @property
    def pool(self) -> Pool:
        """The versions behind the routes."""
        return self._pool

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot that was applied."""
        return self._snapshot

    def find(self, deployment: str, version: str | None = None) -> Route:
        """Return what answers for `deployment`; `version` may name the expected number. Raises `NotFound`."""
        route = self._routes.get(deployment)
        if route is None:
            raise DeploymentNotFound
        if version is not None and version != str(route.served.version.number):
            raise VersionNotServed
        return route

    def routes(self) -> dict[str, Served]:
        """Return the version that answers for each deployment."""
        return {name: route.served for name, route in self._routes.items()}

    def apply(self, snapshot: Snapshot) -> None:
        """Take a newer snapshot; routes follow as their versions become warm."""
        if snapshot.number <= self._snapshot.number:
            return
        self._snapshot = snapshot
        self._pool.accept(snapshot.accepted, snapshot.number)
        self._versions = {version.id: version for version in snapshot.versions}
        self._deployments = {deployment.name: deployment for deployment in snapshot.deployments}
        self.settle()

    def settle(self) -> None:
        """Move each route that can move, and let go of versions that nobody needs any more."""
        for name in self._routes.keys() - self._deployments.keys():
            self._leave(self._routes.pop(name).served)
        self._want()
        for name, deployment in self._deployments.items():
            target = self._pool.get(deployment.version_id)
            current = self._routes.get(name)
            if target is None:
                continue
            if current is None or (target is not current.served and target.answers):
                self._point(deployment, target)
                log.info("deployment answers with", deployment=name, version=target.version.number)
                if current is not None:
                    self._leave(current.served)
            elif current.settings != deployment.settings:
                self._point(deployment, current.served)
        self._want()

    def tend(self) -> None:
        """Let go of versions whose last runs have ended; to be called every few seconds. Everything else settles by itself."""
        if self._leaving:
            self.settle()

    @property
    def warm(self) -> bool:
        """Whether every deployment has a version that answers, or that has been given up for now."""
        return all(served.answers or served.failing for served in self.routes().values())

    def heartbeat(self, server: str, at: float) -> Heartbeat:
        """Say what is served now."""
        return Heartbeat(
            server=server,
            at=at,
            snapshot=self._snapshot.number,
            serving={name: served.version.id for name, served in self.routes().items() if served.answers},
            failing={served.version.id: served.failing for served in self._pool.all() if served.failing and not served.answers},
        )

    def _point(self, deployment: ServedDeployment, served: Served) -> None:
        """Let a version answer for a deployment, by the deployment's settings."""
        old = self._routes.get(deployment.name)
        route = self._routes[deployment.name] = Route(
            deployment, served, self._meter_of(deployment.name, served.version.number)
        )
        if old is not None:
            route.underway = old.underway
        served.configure(deployment.settings, route.meter)

    def _leave(self, served: Served) -> None:
        self._leaving[served.version.id] = served

    def _want(self) -> None:
        routed = {served.version.id: served for served in self.routes().values()}
        self._leaving = {
            version_id: served
            for version_id, served in self._leaving.items()
            if version_id not in routed and not served.batcher.idle
        }
        wanted = {version_id: served.version for version_id, served in (routed | self._leaving).items()}
        for deployment in self._deployments.values():
            version = self._versions.get(deployment.version_id)
            if version is not None:
                wanted[version.id] = version
        self._pool.want(wanted.values(), self._memory(), self._golden())

    def _golden(self) -> dict[str, GoldenCheck]:
        """What becomes of a version's runners that answer otherwise than at validation: as the strictest deployment says."""
        return self._by_version(lambda settings: settings.golden, _STRICTNESS.__getitem__)

    def _memory(self) -> dict[str, Memory]:
        """When each version has runners at all: as the most demanding deployment says."""
        return self._by_version(lambda settings: settings.memory, lambda memory: _DEMANDS[memory.keep])

    def _by_version(self, part: Callable[[DeploymentSettings], T], rank: Callable[[T], int]) -> dict[str, T]:
        """Return one part of the settings for each version: that of the highest rank, where several deployments share it."""
        found: dict[str, T] = {}
        for deployment in self._deployments.values():
            mine, other = part(deployment.settings), found.get(deployment.version_id)
            if other is None or rank(mine) > rank(other):
                found[deployment.version_id] = mine
        return found
