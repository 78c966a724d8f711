"""From a deployment's name to the version that answers. A version takes over only once it is warm; the old one drains.

Beside the promoted version those answer that an alias points to, by the alias or by their number. An alias moves as a
promotion does. What only an alias points to has a runner once somebody asks for it.
"""

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

import structlog
from msgspec.structs import replace

from modelkeep.contracts.errors import NotFound
from modelkeep.contracts.prediction import CacheSeen, Heartbeat
from modelkeep.contracts.snapshot import (
    GoldenCheck,
    KeepLoaded,
    Memory,
    ServedDeployment,
    ServedVersion,
    Snapshot,
)
from modelkeep.contracts.traffic import TrialSeen
from modelkeep.sandbox.succeeding import Coverage
from modelkeep.serving.baking import Baking
from modelkeep.serving.cache import Cache, RouteCache
from modelkeep.serving.meter import Meter
from modelkeep.serving.pool import Pool, Served
from modelkeep.serving.recorder import is_plain
from modelkeep.serving.shadow import MEMORY, shadow_of, spare, spare_id
from modelkeep.serving.shadows import Shadows
from modelkeep.serving.sharing import Sharing
from modelkeep.serving.trials import Alone, Arm, Trials

T = TypeVar("T")

log = structlog.get_logger(__name__)

_STRICTNESS: dict[GoldenCheck, int] = {"off": 0, "warn": 1, "enforce": 2}
_DEMANDS: dict[KeepLoaded, int] = {"on_demand": 0, "auto": 1, "always": 2}


class DeploymentNotFound(NotFound):
    """No deployment of this name answers here."""

    code = "deployment_not_found"


class VersionNotServed(NotFound):
    """This version does not answer: only the promoted one does, and those that an alias points to. Give it an alias first."""

    code = "version_not_served"


class UnderWay:
    """How many predictions of a deployment are under way: one count for all routes that the deployment has had."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Route:
    """What answers for a deployment now: a version, the deployment's settings, and where its predictions are counted.

    `plain`: its predictions are written down as they went over the wire. `underway` counts its predictions. `sharing` is there
    where the deployment's traffic says who else answers whoever asks for no version. `arm`: a trial counts its predictions.
    `cache` is what keeps its answers, None where they are not kept.
    """

    __slots__ = ("arm", "cache", "meter", "name", "plain", "recording", "served", "settings", "sharing", "underway")

    def __init__(self, deployment: ServedDeployment, served: Served, meter: Meter, cache: Cache | None = None) -> None:
        self.name = deployment.name
        self.settings = deployment.settings
        self.recording = deployment.settings.recording
        self.plain = is_plain(self.recording)
        self.served = served
        self.meter = meter
        self.underway = UnderWay()
        self.sharing: Sharing | None = None
        self.arm: Arm | None = None
        self.cache: RouteCache | None = None if cache is None else cache.route(deployment, served, meter)

    @property
    def number(self) -> str:
        """The number of its version, as requests name it."""
        return str(self.served.version.number)


class Pins:
    """What answers for a deployment on request, or beside the promoted version.

    `answering`: the version by alias. `routes`: by the id of each version that an alias points to, or is still answered by, and
    of those that the deployment's traffic names; `sharing` are those of them that answer.
    `names`: the routes by number and by alias, the promoted one's too.
    """

    __slots__ = ("answering", "names", "routes", "sharing")

    def __init__(self, sharing: Collection[str] = ()) -> None:
        self.sharing = sharing
        self.answering: dict[str, Served] = {}
        self.routes: dict[str, Route] = {}
        self.names: dict[str, Route] = {}

    def name(self, promoted: Route) -> None:
        """Put the names together. No alias is a number, so that none hides another."""
        self.names = {route.number: route for route in (promoted, *self.routes.values())}
        for alias, served in self.answering.items():
            self.names[alias] = self.routes[served.version.id]


class Router:
    """Which version answers for each deployment, now."""

    def __init__(
        self,
        pool_of: Callable[[Callable[[], None]], Pool],
        meter_of: Callable[[str, int], Meter],
        cache: Cache | None = None,
        shadows: Shadows | None = None,
    ) -> None:
        self.trials = Trials()
        self.baking = Baking()
        self._pool = pool_of(self.settle)
        self._cache = cache
        self.shadows = shadows or Shadows(None)
        self.shadows.watch(self._pool.running)
        self._meter_of = meter_of
        self._snapshot = Snapshot(0, 0.0)
        self._versions: dict[str, ServedVersion] = {}
        self._deployments: dict[str, ServedDeployment] = {}
        self._routes: dict[str, Route] = {}
        self._pins: dict[str, Pins] = {}
        self._roused: set[str] = set()
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
        """Return what answers for `deployment`: the promoted version, or `version`, a number or an alias. Raises `NotFound`."""
        route = self._routes.get(deployment)
        if route is None:
            raise DeploymentNotFound
        if version is None:
            return route
        pinned = self._pins[deployment].names.get(version)
        if pinned is None:
            raise VersionNotServed
        return pinned

    def routes(self) -> dict[str, Served]:
        """Return the promoted version that answers for each deployment."""
        return {name: route.served for name, route in self._routes.items()}

    def serving(self, deployment: str) -> list[Served]:
        """Return all versions that answer for a deployment, the promoted one first."""
        pinned = (route.served for route in self._pins[deployment].routes.values())
        return list(dict.fromkeys((self._routes[deployment].served, *pinned)))

    def aliases(self, deployment: str) -> dict[str, int]:
        """Return the number of the version that each alias of a deployment is answered by."""
        return {alias: served.version.number for alias, served in self._pins[deployment].answering.items()}

    def apply(self, snapshot: Snapshot) -> None:
        """Take a newer snapshot; routes follow as their versions become warm."""
        if snapshot.number <= self._snapshot.number:
            return
        self._snapshot = snapshot
        self._pool.accept(snapshot.accepted, snapshot.number)
        self._versions = {version.id: version for version in snapshot.versions}
        self._deployments = {deployment.name: deployment for deployment in snapshot.deployments}
        self._roused &= self._versions.keys()
        self.trials.follow(snapshot.deployments)
        self.settle()

    def settle(self) -> None:
        """Move each route that can move, and let go of versions that nobody needs any more."""
        for name in self._routes.keys() - self._deployments.keys():
            for served in self.serving(name):
                self._leave(served)
            del self._routes[name], self._pins[name]
        self._want()
        for name, deployment in self._deployments.items():
            target = self._pool.get(deployment.version_id)
            current = self._routes.get(name)
            if target is None:
                continue
            if current is None or (target is not current.served and self._takes_over(target, current.served)):
                self._point(deployment, target)
                log.info("deployment answers with", deployment=name, version=target.version.number)
                if current is not None:
                    self._leave(current.served)
                    self.baking.leave(name, current.served)
            elif current.settings != deployment.settings:
                self._point(deployment, current.served)
            self._pin(deployment)
            self._share(deployment)
        self._roused = {id_ for id_ in self._roused if (one := self._pool.get(id_)) is not None and not one.answers}
        self._want()
        if self._cache is not None:
            self._cache.retain({(name, served.version.id) for name in self._routes for served in self.serving(name)})
        self._shadow()

    def tend(self) -> None:
        """Let go of versions whose last runs have ended; to be called every few seconds. Everything else settles by itself."""
        if self._leaving or self.baking.over(self._deployments):
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
            failing=self._failing(),
            trials=self._trials(),
        )

    def _failing(self) -> dict[str, str]:
        """Say why versions do not answer. Of those in the shadow nobody asks that but a rollout that begins there."""
        trials = [one.trial for one in self._deployments.values() if one.trial is not None]
        tried = {spare_id(trial.version_id): trial.version_id for trial in trials if trial.shadow}
        failing = [one for one in self._pool.all() if one.failing and not one.answers]
        named = {tried.get(one.version.id, "") if one.version.spec.spare else one.version.id: one.failing for one in failing}
        return {name: why for name, why in named.items() if name}

    def cached(self, room: int) -> dict[str, CacheSeen]:
        """Say what became of requests where answers are kept, in so many bytes of a heartbeat."""
        if self._cache is None:
            return {}
        promoted = {name: (route.settings.cache, route.served.version) for name, route in self._routes.items()}
        return self._cache.told(promoted, room)

    def _trials(self) -> dict[str, TrialSeen]:
        """Return what was counted of each trial: by the shares themselves, and by what a shadow was compared with."""
        found = self.trials.seen()
        for trial, seen in self.shadows.trials(self._deployments.values()).items():
            other = found.get(trial)
            found[trial] = seen if other is None else replace(other, counts={**other.counts, **seen.counts})
        return found

    def coverage(self) -> Coverage:
        """Say which versions answer, and which are to."""
        answering: dict[str, str] = {}
        targets: dict[str, str] = {}
        for name, deployment in self._deployments.items():
            targets[name] = deployment.version_id
            targets |= {f"{name}@{alias}": version_id for alias, version_id in deployment.aliases.items()}
            targets |= {f"{name}%{version_id}": version_id for version_id in deployment.traffic.sharing_ids}
        for name, route in self._routes.items():
            pinned = {f"{name}@{alias}": served for alias, served in self._pins[name].answering.items()}
            sharing = {f"{name}%{version_id}": one.served for version_id, one in self._pins[name].routes.items()}
            paths = {name: route.served} | pinned | sharing
            answering |= {path: one.version.id for path, one in paths.items() if one.answers}
        return Coverage(self._snapshot.number, answering, targets)

    def _point(self, deployment: ServedDeployment, served: Served) -> None:
        """Let a version answer for a deployment, by the deployment's settings."""
        old = self._routes.get(deployment.name)
        route = self._routes[deployment.name] = Route(
            deployment, served, self._meter_of(deployment.name, served.version.number), self._cache
        )
        if old is not None:
            route.underway = old.underway
        served.configure(deployment.settings, route.meter)

    def _pin(self, deployment: ServedDeployment) -> None:
        """Bring what answers on request to what the aliases say; an alias moves once the version that it points to answers."""
        promoted = self._routes[deployment.name]
        before = self._pins.get(deployment.name) or Pins()
        beside = deployment.traffic.sharing_ids
        if not (deployment.aliases or beside or before.routes) and before.names.get(promoted.number) is promoted:
            return
        after = self._pins[deployment.name] = Pins(deployment.traffic.sharing_ids)
        targets = {alias: self._pool.get(version_id) for alias, version_id in deployment.aliases.items()}
        for alias, target in targets.items():
            current = before.answering.get(alias)
            if target is None:
                continue
            if current is None or target is current or self._takes_over(target, current):
                after.answering[alias] = target
            else:
                after.answering[alias] = current
        for served in (*targets.values(), *after.answering.values(), *map(self._pool.get, beside)):
            if served is not None and served.version.id not in after.routes:
                after.routes[served.version.id] = self._pinned(deployment, served, before, promoted)
        after.name(promoted)
        for version_id in before.routes.keys() - after.routes.keys():
            self._leave(before.routes[version_id].served)
        for version_id in before.sharing:
            if version_id in before.routes and version_id not in after.sharing:
                self.baking.leave(deployment.name, before.routes[version_id].served)

    def _share(self, deployment: ServedDeployment) -> None:
        """Bring who answers whoever asks for no version to what the traffic says."""
        promoted, traffic = self._routes[deployment.name], deployment.traffic
        count = self.trials.of(deployment.name)
        alone = count is not None and count.trial.version_id == deployment.version_id == promoted.served.version.id
        promoted.arm = Alone(count) if count is not None and alone else None
        if count is not None:
            count.alone = alone
        if traffic.splits or traffic.rules:
            routes = self._pins[deployment.name].routes
            promoted.sharing = Sharing(deployment, promoted, routes, count)
        else:
            promoted.sharing = None

    def _pinned(self, deployment: ServedDeployment, served: Served, before: Pins, promoted: Route) -> Route:
        """Return the route by which a version answers on request; predictions of all routes of a deployment count as one."""
        if served is promoted.served:
            return promoted
        route = before.routes.get(served.version.id)
        if route is None or route.served is not served or route.settings != deployment.settings:
            route = Route(deployment, served, self._meter_of(deployment.name, served.version.number), self._cache)
            route.underway = promoted.underway
            served.configure(deployment.settings, route.meter)
        return route

    def _takes_over(self, target: Served, current: Served) -> bool:
        """Whether a version that is to answer instead of another does so now: it is warm, or none of the two is.

        One that sleeps is woken first where the other is awake, once: if it sleeps again there is no memory to wait for.
        """
        version_id = target.version.id
        if target.asleep and current.ready and version_id not in self._roused:
            self._roused.add(version_id)
            target.rouse()
            return False
        return target.answers

    def _leave(self, served: Served) -> None:
        self._leaving[served.version.id] = served

    def _answering(self, deployment: str) -> set[Served]:
        """Return the versions that answer whoever asks for none."""
        pins = self._pins[deployment]
        return {self._routes[deployment].served, *(pins.routes[one].served for one in pins.sharing if one in pins.routes)}

    def _want(self) -> None:
        routed = {served.version.id: served for name in self._routes for served in self.serving(name)}
        self._leaving = {
            version_id: served
            for version_id, served in self._leaving.items()
            if version_id not in routed and not served.batcher.idle
        }
        self.baking.settle(self._deployments, self._answering)
        wanted = {version_id: served.version for version_id, served in (routed | self._leaving).items()}
        wanted.update((served.version.id, served.version) for served in self.baking.all())
        for deployment in self._deployments.values():
            for version_id in self._named(deployment):
                version = self._versions.get(version_id)
                if version is not None:
                    wanted[version_id] = version
        wanted |= {one.id: one for one in self._spare().values()}
        self._pool.want(wanted.values(), self._memory(), self._golden(), self._lazy())

    def _golden(self) -> dict[str, GoldenCheck]:
        """What becomes of a version's runners that answer otherwise than at validation: as the strictest deployment says."""
        found = self._by_version(lambda deployment, _version_id: deployment.settings.golden, _STRICTNESS.__getitem__)
        return found | {one.id: self._deployments[name].settings.golden for name, one in self._spare().items()}

    def _memory(self) -> dict[str, Memory]:
        """When each version has runners at all: as the most demanding deployment says."""
        found = self._by_version(self._memory_of, lambda memory: _DEMANDS[memory.keep])
        return found | {one.id: MEMORY for one in self._spare().values()}

    def _lazy(self) -> set[str]:
        """Return the versions that are loaded when somebody asks: only aliases point to them, and nobody wants them always."""
        promoted = {served.version.id for served in self.routes().values()}
        promoted.update(deployment.version_id for deployment in self._deployments.values())
        always = (one for one in self._deployments.values() if one.settings.memory.keep == "always")
        eager = promoted.union(*(deployment.aliases.values() for deployment in always))
        eager.update(*(deployment.traffic.sharing_ids for deployment in self._deployments.values()))
        eager.update(served.version.id for served in self.baking.all())
        aliased = {id_ for deployment in self._deployments.values() for id_ in deployment.aliases.values() if id_ not in eager}
        return aliased.union(one.id for one in self._spare().values())

    # ---- shadows: versions with runners of their own, by ids of their own (`serving/shadow.py`)

    def _spare(self) -> dict[str, ServedVersion]:
        """Return the shadow of each deployment that has one."""
        found: dict[str, ServedVersion] = {}
        for name, deployment in self._deployments.items():
            version = self._versions.get(shadow_of(deployment))
            if version is not None:
                found[name] = spare(version)
        return found

    def _shadow(self) -> None:
        """Have each promoted version that answers shadowed, where that is wanted."""
        found = {}
        for name, version in self._spare().items():
            served, route = self._pool.get(version.id), self._routes.get(name)
            deployment = self._deployments[name]
            if served is not None and route is not None and route.served.version.id == deployment.version_id:
                found[name] = (deployment, route.served, served)
        self.shadows.settle(found)

    def _by_version(self, part: Callable[[ServedDeployment, str], T], rank: Callable[[T], int]) -> dict[str, T]:
        """Return one part of the settings for each version: that of the highest rank, where several deployments share it."""
        found: dict[str, T] = {}
        for deployment in self._deployments.values():
            for version_id in self._named(deployment):
                mine, other = part(deployment, version_id), found.get(version_id)
                if other is None or rank(mine) > rank(other):
                    found[version_id] = mine
        return found

    def _named(self, deployment: ServedDeployment) -> Iterable[str]:
        """Return the ids of the versions that a deployment has to do with: the promoted one first, those that bake last."""
        baking = (served.version.id for served in self.baking.of(deployment.name))
        return dict.fromkeys((deployment.version_id, *deployment.traffic.sharing_ids, *deployment.aliases.values(), *baking))

    def _memory_of(self, deployment: ServedDeployment, version_id: str) -> Memory:
        """When a version has runners: as the deployment says.

        What only an alias points to is kept always, or on demand; what bakes goes for others that need room.
        """
        memory = deployment.settings.memory
        if version_id == deployment.version_id or version_id in deployment.traffic.sharing_ids:
            return memory
        if any(served.version.id == version_id for served in self.baking.of(deployment.name)):
            aliased = memory.keep == "always" and version_id in deployment.aliases.values()
            return memory if aliased or memory.keep == "on_demand" else Memory("auto", memory.idle_s)
        return memory if memory.keep == "always" else Memory("on_demand", memory.idle_s)
