"""Gives each request of a deployment to one of its routes, as its traffic says, and only to versions that have a runner."""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

from modelkeep.contracts.snapshot import ServedDeployment
from modelkeep.serving.calls import Call
from modelkeep.serving.messages import Request
from modelkeep.serving.splits import Splitter
from modelkeep.serving.trials import Arm, Count

if TYPE_CHECKING:
    from modelkeep.serving.router import Route


class Sharing:
    """Shares out one deployment's requests among its routes, by version id; `count` is that of a trial under way.

    Whatever a version without a runner would answer, the promoted one does. Such requests are no trial's, for they were not
    given to it by chance.
    """

    __slots__ = ("_candidate", "_promoted", "_routes", "_splitter")

    def __init__(
        self, deployment: ServedDeployment, promoted: "Route", routes: "Mapping[str, Route]", count: Count | None
    ) -> None:
        self._promoted = promoted
        self._splitter = splitter = Splitter(deployment.id or deployment.name, deployment.traffic)
        found = [routes.get(version_id, promoted) for version_id in splitter.versions]
        self._candidate = promoted.served
        tried = None if count is None else routes.get(count.trial.version_id)
        settled = promoted.served.version.id == deployment.version_id
        if count is not None and not count.trial.shadow and tried is not None and settled and tried is not promoted:
            self._candidate = tried.served
            for at in range(splitter.by_rules, len(found)):
                if found[at] is tried or not splitter.versions[at]:
                    found[at] = _on_trial(found[at], count.arms[0 if found[at] is tried else 1])
        self._routes = tuple(found)

    def assign(self, call: Call, request: Request) -> None:
        """Choose who answers a call that the promoted version would: once, when it is about to be read."""
        at, call.unit = self._splitter.choose(request.key, request.headers)
        route = self._routes[at]
        served, arm = route.served, route.arm
        if arm is not None and arm.count.halted:
            return
        if not served.ready and served is not self._promoted.served:
            served.rouse()
            return
        if arm is None or self._candidate.ready:
            call.route = route


def _on_trial(route: "Route", arm: Arm) -> "Route":
    """Return the same route for requests that a trial counts.

    Each of them is run: a version that is asked more has more of its answers kept, and would fail less and be faster by that.
    """
    twin = copy.copy(route)
    twin.arm, twin.cache = arm, None
    return twin
