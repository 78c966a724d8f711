"""All shadows of a server: which there are, which calls they are asked, and where what was seen of them is left.

A report goes into a file of its own (`<folder>/<id>.shadow`), whole or not at all, from where the courier brings it up. It
counts from the start of the process or of the shadow, so that of one report only the last one counts, and reports add up.
"""

import os
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from modelkeep.contracts.errors import ModelkeepError
from modelkeep.contracts.shadow import ShadowSeen
from modelkeep.contracts.traffic import TrialSeen
from modelkeep.serving.pairs import BY_ITSELF
from modelkeep.serving.shadow import Around, Shadow

if TYPE_CHECKING:
    from modelkeep.contracts.snapshot import ServedDeployment
    from modelkeep.serving.batcher import Finished
    from modelkeep.serving.pool import Served

log = structlog.get_logger(__name__)

_TELL_EVERY_S: Final = 5.0


def _uncounted(_deployment: str, _result: str) -> None:
    """Count nothing."""


class Shadows:
    """All shadows of a server. `folder` is where it leaves what it has seen of them, for the courier; None for nowhere."""

    def __init__(self, folder: Path | None, server: str = "", count: Callable[[str, str], None] = _uncounted) -> None:
        self._folder = folder
        self._shadows: dict[str, Shadow] = {}
        self._ending: list[Shadow] = []
        self._running: Callable[[], int] = lambda: 0
        self._cores = len(os.sched_getaffinity(0))
        self._around = Around(server, lambda: self._running() < self._cores, count)
        self._told_at = 0.0

    def watch(self, running: Callable[[], int]) -> None:
        """Take from here how many runs are under way that somebody waits for."""
        self._running = running

    def get(self, deployment: str) -> Shadow | None:
        """Return the shadow of a deployment, if it has one."""
        return self._shadows.get(deployment)

    def settle(self, wanted: "dict[str, tuple[ServedDeployment, Served, Served]]") -> None:
        """Have these deployments shadowed, each with its promoted version and its shadow, and no others."""
        for name, shadow in list(self._shadows.items()):
            deployment, primary, served = wanted.get(name, (None, None, None))
            split = None if deployment is None else deployment.traffic.shadow
            same = shadow.primary is primary and shadow.served is served
            if deployment is None or split is None or not same or deployment.settings.recording != shadow.recording:
                shadow.end()
                shadow.primary.batcher.told = None
                self._ending.append(shadow)
                del self._shadows[name]
            else:
                shadow.share = split.share / 100
        for name, (deployment, primary, served) in wanted.items():
            if name not in self._shadows and deployment.traffic.shadow is not None:
                share, recording = deployment.traffic.shadow.share, deployment.settings.recording
                self._shadows[name] = Shadow(name, primary, served, share, around=self._around, recording=recording)
        for name, shadow in self._shadows.items():
            shadow.primary.batcher.told = self._heard
            trial = wanted[name][0].trial
            shadow.try_for(trial.id if trial is not None and trial.shadow and trial.version_id == shadow.version_id else "")

    def _heard(self, finished: "Finished") -> None:
        """Answers have been told: choose those whose calls the shadow is asked, too.

        While a rollout is in the shadow, it is also asked what the promoted version has failed by itself. What a version
        would have mended were else never seen, and evidence that compares both would be against every new one.
        """
        for call, response in finished:
            shadow = self._shadows.get(call.route.name)
            if shadow is None:
                continue
            heard = not isinstance(response, ModelkeepError)
            wanted = call.share is not None if heard else shadow.pairs is not None and isinstance(response, BY_ITSELF)
            if not wanted:
                continue
            if call.route.served is shadow.primary and random.random() < shadow.share:  # noqa: S311 - a share is no secret
                shadow.offer(call, call.share, heard=heard)

    def trials(self, deployments: "Iterable[ServedDeployment]") -> dict[str, TrialSeen]:
        """Return what has been counted for trials of versions that are shadows, by the trial's id."""
        found: dict[str, TrialSeen] = {}
        for one in deployments:
            shadow = self._shadows.get(one.name)
            if one.trial is None or shadow is None or one.trial.version_id != shadow.version_id:
                continue
            if shadow.pairs is not None:
                found[one.trial.id] = TrialSeen(shadow.pairs.counts)
            elif not one.trial.shadow:
                found[one.trial.id] = TrialSeen({"disagreement": shadow.disagreement})
        return found

    # ---- what is told

    def tend(self) -> None:
        """Leave what has been seen where the courier finds it; to be called about once a second."""
        now = time.monotonic()
        if self._folder is None or now - self._told_at < _TELL_EVERY_S:
            return
        self._told_at = now
        for shadow in (*self._ending, *self._shadows.values()):
            self._tell(self._folder, shadow)
        self._ending = [shadow for shadow in self._ending if shadow.changed]

    def _tell(self, folder: Path, shadow: Shadow) -> None:
        if not shadow.changed:
            return
        seen = shadow.telling()
        if seen is None:
            return
        self._around.aside(lambda: _left(folder, seen), lambda _none: shadow.told())

    def close(self) -> None:
        """Leave what has been seen, at the end of the process."""
        for shadow in (*self._ending, *self._shadows.values()):
            shadow.end()
            seen = shadow.telling() if shadow.changed else None
            if seen is not None and self._folder is not None:
                _left(self._folder, seen)


def _left(folder: Path, seen: Callable[[], ShadowSeen]) -> None:
    """Write a report where the courier finds it, whole or not at all."""
    try:
        report = seen()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = folder / f"{report.id}.new"
        fd = os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.msgpack.encode(report))
        fresh.replace(folder / f"{report.id}.shadow")
    except (OSError, msgspec.MsgspecError, TypeError, ValueError) as error:
        log.warning("what was seen of a shadow cannot be left", folder=str(folder), reason=str(error))
